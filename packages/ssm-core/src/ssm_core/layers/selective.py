"""One direction of a Mamba mixer: convolution, input-dependent projections, selective scan.

Mamba has one such direction, bidirectional Mamba two over the same input. Everything runs in the
layout (b, l, E); the operators take strides and a direction, so nothing is transposed or flipped.

Source: Gu & Dao 2023, arXiv:2312.00752, Algorithm 2 and section 3.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssm_core.init import exempt_from_reinit, exempt_from_weight_decay, init_step_size_bias
from ssm_core.norm import at_least_float32
from ssm_core.shapes import ConvState, Inner, InnerStep, Offsets, ScanState, StepSizes
from ssm_kernels import (
    MambaParameters,
    causal_conv1d,
    causal_conv1d_update,
    fused_mamba_directions,
    selective_scan,
    selective_state_update,
)


class SelectiveSizes(NamedTuple):
    """Sizes and initial step sizes of one direction."""

    d_inner: int
    d_state: int
    d_conv: int
    dt_rank: int
    dt_range: tuple[float, float, float]  # least, greatest and floor of the initial step size
    conv_bias: bool


class SelectiveDirection(NamedTuple):
    """The parameters of one direction; the mixer owns them under the names of its checkpoints."""

    conv1d: nn.Conv1d
    x_proj: nn.Linear
    dt_proj: nn.Linear
    A_log: nn.Parameter
    D: nn.Parameter


class MambaState(NamedTuple):
    """State of one direction, enough to continue a sequence exactly."""

    conv: ConvState
    """(b, E, k - 1): the last inputs of the convolution, before bias and activation."""
    ssm: ScanState
    """(b, E, n): state of the scan."""


def make_direction(sizes: SelectiveSizes) -> SelectiveDirection:
    """Create the parameters of one direction with their initial values.

    A = -exp(A_log) starts as -1, -2, .., -n in every channel, D as 1, the step sizes log-uniform in
    `dt_range`. A_log, D and dt_proj.bias are float32 and exempt from weight decay.
    """
    d_inner, d_state, d_conv, dt_rank, dt_range, conv_bias = sizes
    # Only the parameters of this module are used, for the names and the shapes of the checkpoints.
    conv1d = nn.Conv1d(d_inner, d_inner, d_conv, groups=d_inner, bias=conv_bias)
    x_proj = nn.Linear(d_inner, dt_rank + 2 * d_state, bias=False)

    dt_proj = nn.Linear(dt_rank, d_inner, bias=True)
    # Keeps the variance of the step size at initialisation, whatever the rank.
    nn.init.uniform_(dt_proj.weight, -(dt_rank**-0.5), dt_rank**-0.5)
    init_step_size_bias(dt_proj.bias, *dt_range)
    exempt_from_reinit(exempt_from_weight_decay(dt_proj.bias))

    A_log = exempt_from_weight_decay(
        nn.Parameter(torch.empty(d_inner, d_state, dtype=torch.float32))
    )
    if not A_log.is_meta:  # arithmetic there makes torch import its compiler, for seconds
        A_log.data.copy_(torch.arange(1, d_state + 1, dtype=torch.float32).log())
    D = exempt_from_weight_decay(nn.Parameter(torch.ones(d_inner, dtype=torch.float32)))
    return SelectiveDirection(conv1d, x_proj, dt_proj, A_log, D)


def run_direction(
    direction: SelectiveDirection,
    x: Inner,
    z: Inner | None,
    state: MambaState | None = None,
    cu_seqlens: Offsets | None = None,
    reverse: bool = False,
) -> tuple[Inner, MambaState]:
    """Convolve, project and scan x (b, l, E), gated by z; with `cu_seqlens` packed sequences.

    Bias and softplus of the step size, the skip D x and the gate silu(z) happen inside the scan, in
    float32 also under autocast.

    Returns:
        y (b, l, E) and the state after the last step (the first one if `reverse`).
    """
    x, conv_state = _convolve(
        direction, x, None if state is None else state.conv, cu_seqlens, reverse
    )
    delta, B, C = _project(direction, x)
    y, ssm_state = selective_scan(
        x,
        delta,
        -torch.exp(at_least_float32(direction.A_log)),
        B,
        C,
        direction.D,
        z,
        direction.dt_proj.bias,
        delta_softplus=True,
        initial_state=None if state is None else state.ssm,
        return_final_state=True,
        reverse=reverse,
        cu_seqlens=cu_seqlens,
    )
    return y, MambaState(conv_state, ssm_state)


def run_directions(
    directions: Sequence[SelectiveDirection],
    reverse: Sequence[bool],
    x: Inner,
    z: Inner,
    cu_seqlens: Offsets | None,
    factor: float = 1.0,
) -> Inner:
    """Return the sum of what `run_direction` gives in each direction, times `factor`.

    In inference on a CPU one kernel does it all.
    """
    can_fuse = not torch.is_grad_enabled() and cu_seqlens is None
    if can_fuse and all(_is_plain(own.x_proj) for own in directions):
        parameters = [_parameters(own) for own in directions]
        y = fused_mamba_directions(x, z, parameters, reverse, factor)
        if y is not None:
            return y
    ways = zip(directions, reverse, strict=True)
    first, *others = [run_direction(own, x, z, None, cu_seqlens, way)[0] for own, way in ways]
    y = sum(others, first)
    return y if factor == 1.0 else y * factor


def step_direction(
    direction: SelectiveDirection, x: InnerStep, z: InnerStep, state: MambaState
) -> tuple[InnerStep, MambaState]:
    """Do what `run_direction` does for a single step x (b, E), without a gradient and faster.

    The state given is left as it is: the new one starts as a copy of it, because a caller may go
    on from the same state twice. (Copying takes 2 of some 80 microseconds at E = 512.)
    """
    state = MambaState(*own_copies(state, x))
    weight = direction.conv1d.weight.squeeze(1)  # (E, 1, k) -> (E, k)
    x = causal_conv1d_update(x, state.conv, weight, direction.conv1d.bias, activation="silu")
    delta, B, C = _project(direction, x)
    y = selective_state_update(
        state.ssm,
        x,
        delta,
        torch.exp(at_least_float32(direction.A_log)).neg_(),
        B,
        C,
        direction.D,
        z,
        direction.dt_proj.bias,
        dt_softplus=True,
    )
    return y, state


def own_copies(state: tuple[Tensor, ...], x: Tensor) -> list[Tensor]:
    """Copy the parts of a state for operators that write into them, in the type of sums over x."""
    real = torch.float64 if x.dtype is torch.float64 else torch.float32
    # clone, not to(copy=True): two microseconds less
    return [part.clone() if part.dtype is real else part.to(real) for part in state]


def step_sizes_of(direction: SelectiveDirection, x: Inner, reverse: bool = False) -> StepSizes:
    """Return the step sizes Delta (b, l, E) that `run_direction` uses for x, in float32."""
    x, _ = _convolve(direction, x, None, None, reverse)
    delta, _, _ = _project(direction, x)
    return F.softplus(at_least_float32(delta) + at_least_float32(direction.dt_proj.bias))


def zero_state(direction: SelectiveDirection, batch: int) -> MambaState:
    """Return the state before the first step of `batch` sequences."""
    d_inner, d_state = direction.A_log.shape
    d_conv = direction.conv1d.weight.shape[2]
    zeros = at_least_float32(direction.conv1d.weight.new_zeros(()))
    return MambaState(
        zeros.new_zeros(batch, d_inner, d_conv - 1), zeros.new_zeros(batch, d_inner, d_state)
    )


def _parameters(direction: SelectiveDirection) -> MambaParameters:
    conv1d, x_proj, dt_proj, A_log, D = direction
    conv_weight, conv_bias = _weight_and_bias(conv1d)
    dt_weight, dt_bias = _weight_and_bias(dt_proj)
    return MambaParameters(
        conv_weight, conv_bias, _weight_and_bias(x_proj)[0], dt_weight, dt_bias, A_log, D
    )


def _weight_and_bias(module: nn.Conv1d | nn.Linear) -> tuple[Tensor, Tensor | None]:
    """Its attributes, without the slow search of nn.Module where they are ordinary parameters."""
    own = module._parameters
    if "weight" in own and "bias" in own:
        return cast(Tensor, own["weight"]), own["bias"]
    return module.weight, module.bias  # pruned or parametrized


def _is_plain(x_proj: nn.Linear) -> bool:
    """Whether its weight says all that it does: it is the one module here that is called."""
    return (
        type(x_proj) is nn.Linear
        and x_proj._parameters["bias"] is None
        and not (x_proj._forward_hooks or x_proj._forward_pre_hooks)
    )


def _convolve(
    direction: SelectiveDirection,
    x: Inner,
    state: ConvState | None,
    cu_seqlens: Offsets | None,
    reverse: bool,
) -> tuple[Inner, ConvState]:
    y, final_state = causal_conv1d(
        x,
        direction.conv1d.weight.squeeze(1),  # (E, 1, k) -> (E, k)
        direction.conv1d.bias,
        activation="silu",
        initial_state=state,
        return_final_state=True,
        reverse=reverse,
        cu_seqlens=cu_seqlens,
    )
    return y, final_state


def _project(direction: SelectiveDirection, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the step size before bias and softplus (b, l, E), B (b, l, n) and C (b, l, n).

    The axis l may be missing.
    """
    dt_rank, d_state = direction.dt_proj.weight.shape[1], direction.A_log.shape[1]
    dt, B, C = direction.x_proj(x).split_with_sizes([dt_rank, d_state, d_state], dim=-1)
    # Without the bias: it enters inside the scan, in float32.
    return F.linear(dt, direction.dt_proj.weight), B, C
