"""What a model costs: parameters, non-zero ones, bytes, and operations of a forward pass.

Nothing here looks at masks. Zeros are counted in the weights, operations by watching a forward pass
of the model as it is, so that only what was physically removed makes the numbers smaller.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ssm_core.specs import DataInfo
from ssm_prune.errors import PruneError
from ssm_prune.operations import operator_formulas


@dataclass(frozen=True)
class Costs:
    """What a model costs.

    Attributes:
        parameters: how many numbers are trained; tied ones once.
        nonzero: how many of them are not 0.
        bytes: of parameters and buffers, as they are stored: a zero takes as much as any number.
        flops: additions and multiplications of a forward pass of one example; None: could not be
            counted, `note` says why.
        by_operator: operator -> its share of `flops`.
    """

    parameters: int
    nonzero: int
    bytes: int
    flops: int | None = None
    by_operator: Mapping[str, int] = field(default_factory=dict)
    note: str = ""


def count_costs(model: nn.Module, info: DataInfo) -> Costs:
    """Count `model`, with a forward pass of one example such as `info` describes.

    A model that cannot be run on one input alone keeps `flops` None and says so in `note`.
    Cost: one forward pass.
    """
    parameters = list(model.parameters())
    tensors = [*parameters, *model.buffers()]
    flops, shares, note = None, {}, ""
    try:
        shares = count_flops(model, example_input(model, info, 1))
        flops = sum(shares.values())
    except PruneError as error:
        note = str(error)
    return Costs(
        sum(p.numel() for p in parameters),
        sum(int(p.count_nonzero()) for p in parameters),
        sum(t.numel() * t.element_size() for t in tensors),
        flops,
        shares,
        note,
    )


def count_flops(model: nn.Module, inputs: Tensor) -> dict[str, int]:
    """Additions and multiplications of a forward pass, by operator.

    Counted are products of matrices, convolutions and attention (torch's own formulas, a
    multiplication and an addition count 2), Fourier transforms and the operators of ssm-kernels
    (`ssm_prune.operations`). Not counted: element by element arithmetic, norms, activations; and
    the scans where they run without the compiled kernels. A product of complex matrices counts like
    a real one.

    Args:
        inputs: a batch, on the device of the model.
    """
    counter = FlopCounterMode(display=False, custom_mapping=operator_formulas())
    with evaluation(model), _no_fused_attention(), torch.no_grad(), counter:
        model(inputs)
    found = counter.get_flop_counts().get("Global", {})
    return {str(operator): int(count) for operator, count in found.items()}


def example_input(model: nn.Module, info: DataInfo, batch: int) -> Tensor:
    """Random inputs (batch, *info.input_shape), the same each time, on the device of the model.

    Token ids below `n_outputs` for data with one axis (text), else numbers in [0, 1) (images).

    Raises:
        PruneError: the model wants more than one input.
    """
    others = _further_inputs(model)
    if others:
        raise PruneError(
            f"{type(model).__name__} needs {', '.join(others)} beside its input: it cannot be run "
            "on data alone, so its operations and its time are not measured"
        )
    parameter = next(model.parameters())
    generator = torch.Generator().manual_seed(0)
    shape = (batch, *info.input_shape)
    if len(info.input_shape) == 1:
        ids = torch.randint(info.n_outputs, shape, generator=generator)
        return ids.to(parameter.device)
    return torch.rand(shape, generator=generator).to(parameter)


@contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """Put the model into evaluation mode, and every module back afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _further_inputs(model: nn.Module) -> list[str]:
    required = [
        p.name
        for p in inspect.signature(model.forward).parameters.values()
        if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    return required[1:]


@contextmanager
def _no_fused_attention() -> Iterator[None]:
    """One operator for a whole layer of torch's transformer would not be counted."""
    backends: Any = torch.backends.mha
    before = backends.get_fastpath_enabled()
    backends.set_fastpath_enabled(False)
    try:
        yield
    finally:
        backends.set_fastpath_enabled(before)
