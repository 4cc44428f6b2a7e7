"""mamba_ssm.ops.triton.selective_state_update: one decode step of Mamba and Mamba-2, in place."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .. import selective_state_update as operator
from ..backends import Backend


class _Step(NamedTuple):
    """The arguments of one step after the state."""

    x: Tensor
    dt: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    dt_bias: Tensor | None


def selective_state_update(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    state_batch_indices: Tensor | None = None,
) -> Tensor:
    """Advance `state` one step in place, h <- exp(dt A) h + dt B x; return (C h + D x) silu(z).

    As in the original, no gradient is recorded.

    Args:
        state: (b, d, n) or with heads (b, h, p, n), overwritten; any float type.
        x: (b, d) or (b, h, p).
        dt: as x, step size before bias and softplus.
        A: (d, n) or (h, p, n).
        B: (b, n) or (b, g, n).
        C: like B.
        D: (d,) or (h, p); None means 0.
        z: as x, gate; None means no gate.
        dt_bias: as D; None means 0.
        dt_softplus: pass the step size through a softplus.
        state_batch_indices: (b,) integers, no two the same: which rows of the state, of any number,
            belong to the batch. None means row i to entry i.

    Returns:
        y, in shape and type of x.

    Raises:
        ShapeError, DTypeError, DeviceError: from `ssm_kernels.selective_state_update`.

    Cost: O(b d n) time; with indices also copies of the states chosen.
    Source: Gu & Dao 2023, arXiv:2312.00752, Eq. 2; heads: Dao & Gu 2024, arXiv:2405.21060.
    """
    step = _Step(x, dt, A, B, C, D, z, dt_bias)
    if state_batch_indices is None:
        return _advance(state, step, dt_softplus, Backend.AUTO)
    rows = state_batch_indices.long()
    with torch.no_grad():
        states = state[rows]
        y = _advance(states, step, dt_softplus, Backend.AUTO)
        state[rows] = states
    return y


def selective_state_update_ref(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
) -> Tensor:
    """Compute what `selective_state_update` does in plain PyTorch; no gradient either."""
    step = _Step(x, dt, A, B, C, D, z, dt_bias)
    return _advance(state, step, dt_softplus, Backend.REFERENCE)


def _advance(state: Tensor, step: _Step, dt_softplus: bool, backend: Backend) -> Tensor:
    with torch.no_grad():
        if state.dim() == 4:
            step = _with_heads(step)
        return operator(state, *step, bool(dt_softplus), backend=backend)


def _with_heads(step: _Step) -> _Step:
    """Give arguments without heads their axis: the original takes them beside a state with one."""

    def add(tensor: Tensor | None, axes: int, position: int) -> Tensor | None:
        return tensor if tensor is None or tensor.dim() != axes else tensor.unsqueeze(position)

    x, dt, A, B, C, D, z, dt_bias = step
    return _Step(
        x.unsqueeze(1) if x.dim() == 2 else x,
        dt.unsqueeze(1) if dt.dim() == 2 else dt,
        A.unsqueeze(0) if A.dim() == 2 else A,
        *(B, C, add(D, 1, 0), add(z, 2, 1), add(dt_bias, 1, 0)),
    )
