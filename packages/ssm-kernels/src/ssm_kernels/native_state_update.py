"""The compiled decode step of the selective scan: checked tensors in, y out, the state in place."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from . import native_extension as extension
from .native_extension import DTYPE_CODES

_ABSENT = (0, 0)  # of what the kernel is given for a tensor: address, dtype code, strides
_DOUBLE = frozenset({torch.float64, torch.complex128})


class StateUpdateInputs(NamedTuple):
    """The tensors of one step, in the order of the operator's arguments."""

    state: Tensor
    x: Tensor
    dt: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    dt_bias: Tensor | None


def selective_state_update(inputs: StateUpdateInputs, *, dt_softplus: bool) -> Tensor:
    """One decode step; returns y.

    state: (b, d, n) or (b, h, p, n). x, dt, z: that without n. A: that without b. B, C: (b, n) or
    (b, g, n). D, dt_bias: (d,) or (h, p). Any strides and float types; state, A, B and C complex if
    A is.
    """
    state, _, _, A, B, C, *_ = inputs
    if B.dim() != C.dim() or (B.dim() == 3 and B.shape[1] != C.shape[1]):
        heads = state.shape[1]
        inputs = inputs._replace(B=_row_per_head(B, heads), C=_row_per_head(C, heads))
    if A.dtype is not torch.float32:
        return _converted(inputs, dt_softplus)
    for t in inputs:
        if t is not None and (t.dtype is torch.float64 or t.is_neg()):
            return _converted(inputs, dt_softplus)
    return _launch(inputs, dt_softplus)


def _converted(inputs: StateUpdateInputs, dt_softplus: bool) -> Tensor:
    """For what the kernel does not read: doubles beside other types, lazy and complex numbers."""
    state, x, dt, A, B, C, D, z, dt_bias = inputs
    activations = (state, x, dt, B, C, z)
    double = any(t is not None and t.dtype in _DOUBLE for t in activations)
    real = torch.float64 if double else torch.float32
    number = real.to_complex() if A.is_complex() else real

    def activation(t: Tensor | None) -> Tensor | None:
        return None if t is None else (t.to(real) if double else t).resolve_neg()

    def matrix(t: Tensor, convert: bool) -> Tensor:
        t = (t.to(number) if convert else t).resolve_neg().resolve_conj()
        return torch.view_as_real(t)[..., 0] if A.is_complex() else t

    convert = double or A.is_complex()
    numbers = (state.to(number) if convert else state).resolve_neg().resolve_conj()
    prepared = StateUpdateInputs(
        matrix(numbers, False),
        activation(x),  # type: ignore[arg-type]
        activation(dt),  # type: ignore[arg-type]
        matrix(A, True),
        matrix(B, convert),
        matrix(C, convert),
        *map(activation, (D, z, dt_bias)),
    )
    y = _launch(prepared, dt_softplus, complex_A=A.is_complex())
    if numbers is not state:
        state.copy_(numbers)
    return y.to(x.dtype)


def _launch(inputs: StateUpdateInputs, dt_softplus: bool, complex_A: bool = False) -> Tensor:
    """Run the kernel. Complex tensors are given as views of their real parts."""
    state, B = inputs.state, inputs.B
    y = torch.empty_like(inputs.x)
    if y.numel() == 0:  # and so is the state
        return y
    groups = B.shape[1] if B.dim() == 3 else 1
    shape = state.shape
    has_heads = len(shape) == 4
    kernels = extension.module_for(state)
    kernels.selective_state_update(
        (shape[0], shape[1], shape[2] if has_heads else 1, shape[-1], groups),
        has_heads,
        [
            _ABSENT if t is None else (t.data_ptr(), DTYPE_CODES[t.dtype], *t.stride())
            for t in (*inputs, y)
        ],
        (complex_A, dt_softplus),
        torch.get_num_threads(),
        extension.cuda_call(kernels, state),
    )
    return y


def _row_per_head(M: Tensor, heads: int) -> Tensor:
    """B or C with as many groups as heads; one row for all of them is not copied."""
    if M.dim() == 2:
        return M.unsqueeze(1).expand(-1, heads, -1)
    if M.shape[1] == 1:
        return M.expand(-1, heads, -1)
    return M.repeat_interleave(heads // M.shape[1], dim=1)
