"""Initial values: step sizes spread over scales, and residual branches that start small; the marks
that parameters carry for optimizers.

The step-size bias of a Mamba layer decides over how many steps it can remember. Frameworks like to
set every Linear bias to zero after construction, which silently destroys it (softplus(0) = 0.69: a
memory of one or two steps). Such parameters carry the attribute `_no_reinit = True`;
`zero_linear_biases` obeys it, and so must every other pass that re-initialises a model.

Sources: Gu & Dao 2023, arXiv:2312.00752, section 3.6 (step sizes); Gu et al. 2022, arXiv:2206.12037
(log-uniform step sizes); Radford et al. 2019, GPT-2 (residual rescaling).
"""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from torch import Tensor, nn


def inverse_softplus(y: Tensor) -> Tensor:
    """Return x with softplus(x) = y, for y > 0 of any shape.

    Written as y + log(1 - exp(-y)): the textbook log(exp(y) - 1) loses its digits at y = 1e-3 and
    overflows at y = 89.
    """
    return y + torch.log(-torch.expm1(-y))


def log_of(values: Tensor) -> Tensor:
    """The logarithm of initial values; on the meta device, which has none, `values` itself.

    Arithmetic on that device makes torch import its compiler, which takes seconds.
    """
    return values if values.is_meta else values.log()


@torch.no_grad()
def init_step_size_bias(bias: Tensor, dt_min: float, dt_max: float, dt_floor: float) -> None:
    """Fill `bias` (E,): softplus(bias) is log-uniform in [dt_min, dt_max] and at least dt_floor."""
    if bias.is_meta:  # nothing to fill
        return
    log_dt = torch.empty_like(bias, dtype=torch.float32)
    log_dt.uniform_(math.log(dt_min), math.log(dt_max))
    bias.copy_(inverse_softplus(log_dt.exp().clamp(min=dt_floor)))


def exempt_from_weight_decay(parameter: nn.Parameter) -> nn.Parameter:
    """Mark a parameter that weight decay would damage, and return it.

    Optimisers read the attribute `_no_weight_decay`. `copy.deepcopy` and
    `load_state_dict(assign=True)` lose attributes of parameters: build parameter groups from the
    model as constructed.
    """
    parameter._no_weight_decay = True  # type: ignore[attr-defined]
    return parameter


def learn_at(
    parameter: nn.Parameter, lr: float | None, weight_decay: float | None = 0.0
) -> nn.Parameter:
    """Give a parameter a learning rate and a weight decay of its own, and return it.

    The state matrices and step sizes of S4 and S5 move the time scales of a layer and are trained
    more slowly than its other weights, without decay. Optimisers read the attribute `_optim`, a
    dict, as in the official S4 code; `ssm_core.train.optim.parameter_groups` makes a group of each
    different one. The schedule multiplies all learning rates alike.

    Args:
        lr: peak learning rate; None means the global one.
        weight_decay: None means the global one.
    """
    options = {"lr": lr, "weight_decay": weight_decay}
    parameter._optim = {k: v for k, v in options.items() if v is not None}  # type: ignore[attr-defined]
    return parameter


def exempt_from_reinit(parameter: nn.Parameter) -> nn.Parameter:
    """Mark a parameter whose initial value must survive generic passes, and return it."""
    parameter._no_reinit = True  # type: ignore[attr-defined]
    return parameter


@torch.no_grad()
def zero_linear_biases(module: nn.Module) -> None:
    """Set the bias of every `nn.Linear` in `module` to zero, except those marked `_no_reinit`."""
    for part in module.modules():
        if not isinstance(part, nn.Linear) or part.bias is None:
            continue
        if not getattr(part.bias, "_no_reinit", False):
            part.bias.zero_()


@torch.no_grad()
def rescale_residual_branches(
    module: nn.Module, n_layers: int, names: Collection[str] = ("out_proj", "fc2")
) -> None:
    """Divide the weight of every Linear called one of `names` by sqrt(n_layers).

    These are the last matrices of the residual branches. n branches of variance 1/n add up to a
    residual stream whose size does not grow with the depth.
    """
    for name, part in module.named_modules():
        named = isinstance(part, nn.Linear) and name.rpartition(".")[2] in names
        if named and not part.weight.is_meta:
            part.weight.div_(math.sqrt(n_layers))
