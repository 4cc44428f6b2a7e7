"""Our operators in terms of PyTorch's own and of `recurrence`: what ONNX graphs are made of.

Each function takes the arguments of a registered operator (`ssm_kernels.library`) and returns its
results; those that only a gradient needs are empty. Sums are in the types of the operators.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ssm_core.errors import ConfigError
from ssm_core.export.recurrence import recurrence
from ssm_kernels.reference import causal_conv1d_reference


def decompositions() -> dict[Any, Callable[..., Any]]:
    """Operator -> function, for `torch.export.ExportedProgram.run_decompositions`."""
    ours = torch.ops.ssm_kernels
    return {
        ours.causal_conv1d_forward.default: _causal_conv1d,
        ours.selective_scan_forward.default: _selective_scan,
        ours.selective_scan_directions_forward.default: _selective_scan_directions,
        ours.ssd_scan_forward.default: _ssd_scan,
    }


def _causal_conv1d(
    x: Tensor, weight: Tensor, bias: Tensor | None, initial_state: Tensor | None, *options: Any
) -> tuple[Tensor, Tensor]:
    cu_seqlens, silu, reverse, _ = options
    refuse_packed(cu_seqlens)
    result = causal_conv1d_reference(
        x,
        weight,
        bias,
        "silu" if silu else None,
        initial_state=initial_state,
        return_final_state=True,
        reverse=reverse,
    )
    assert isinstance(result, tuple)
    return result


def _selective_scan(u: Tensor, delta: Tensor, A: Tensor, *others: Any) -> tuple[Tensor, ...]:
    B, C, D, z, delta_bias, state, cu_seqlens, softplus, reverse, _ = others
    refuse_packed(cu_seqlens)
    if A.is_complex():
        raise ConfigError("a selective scan with a complex A has no ONNX form, expected a real A")
    real = A.dtype
    x, step = u.to(real), _step(delta, delta_bias, softplus, real)
    if state is None:
        state = x.new_zeros(x.shape[0], *A.shape)
    rows_B, rows_C = (_rows(M.to(real), x) for M in (B, C))
    y, state = _recur(
        step.unsqueeze(-1), A, (step * x).unsqueeze(-1), rows_B, rows_C, state, reverse
    )
    y = _gated(y if D is None else y + D * x, z)
    return y.to(u.dtype), state, u.new_empty(0)


def _selective_scan_directions(u: Tensor, delta: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    A, B, C, D, z, delta_bias, softplus, directions, columns, _ = others
    total: Tensor | None = None
    for k, name in enumerate(directions.split(",")):
        by_columns, reverse = name in ("down", "up"), name in ("backward", "up")
        own = [u if u.dim() == 3 else u[:, :, k], delta[:, :, k], B[:, :, k], C[:, :, k]]
        if by_columns:
            own = [_transposed(x, columns) for x in own]
        u_k, delta_k, B_k, C_k = own
        D_k, bias_k = (None if x is None else x[k] for x in (D, delta_bias))
        options = (None, None, softplus, reverse, False)
        wide = u_k.to(A.dtype)  # the sum over directions is rounded once
        y, *_ = _selective_scan(wide, delta_k, A[k], B_k, C_k, D_k, None, bias_k, *options)
        if by_columns:
            y = _transposed(y, y.shape[1] // columns)
        total = y if total is None else total + y
    assert total is not None
    return _gated(total, z), u.new_empty(0)


def _ssd_scan(x: Tensor, dt: Tensor, A: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    B, C, D, z, dt_bias, state, cu_seqlens, softplus, least, largest, reverse, _, _ = others
    refuse_packed(cu_seqlens)
    real = A.dtype
    inputs, step = x.to(real), _step(dt, dt_bias, softplus, real).clamp(least, largest)
    b, _, h, p = x.shape
    if state is None:
        state = inputs.new_zeros(b, h, p, B.shape[-1])
    rows_B, rows_C = (_row_per_head(M.to(real), h).unsqueeze(3) for M in (B, C))
    rate, drive = step[..., None, None], (step.unsqueeze(-1) * inputs).unsqueeze(-1)
    y, state = _recur(rate, A[:, None, None], drive, rows_B, rows_C, state, reverse)
    if D is not None:
        y = y + (D if D.dim() == 2 else D.unsqueeze(-1)) * inputs
    return _gated(y, z).to(x.dtype), state


def _recur(
    rate: Tensor, A: Tensor, drive: Tensor, B: Tensor, C: Tensor, state: Tensor, reverse: bool
) -> tuple[Tensor, Tensor]:
    """`recurrence`, in either direction; of a single step without a loop."""
    if isinstance(drive.shape[1], int) and drive.shape[1] == 1:
        h = torch.exp(rate[:, 0] * A) * state + drive[:, 0] * B[:, 0]
        return (C[:, 0] * h).sum(-1).unsqueeze(1), h
    if reverse:
        rate, drive, B, C = (x.flip(1) for x in (rate, drive, B, C))
    y, h = recurrence(rate, A, drive, B, C, state)
    return y.flip(1) if reverse else y, h


def _step(delta: Tensor, bias: Tensor | None, softplus: bool, real: torch.dtype) -> Tensor:
    step = delta.to(real)
    if bias is not None:
        step = step + bias
    return F.softplus(step) if softplus else step


def _gated(y: Tensor, z: Tensor | None) -> Tensor:
    return y if z is None else y * F.silu(z.to(y.dtype))


def _rows(M: Tensor, x: Tensor) -> Tensor:
    """B or C of a selective scan over x (b, l, d), so that it broadcasts against (b, l, d, n)."""
    b, l, d = x.shape
    if M.dim() == 2:  # (d, n), the same at every step
        return M.expand(b, l, *M.shape)
    return M.unsqueeze(2) if M.dim() == 3 else _row_per_head(M, d)


def _row_per_head(M: Tensor, h: int) -> Tensor:
    """(b, l, g, n), one row per group of h/g neighbours -> (b, l, h, n)."""
    b, l, g, n = M.shape
    return M.unsqueeze(3).expand(b, l, g, h // g, n).flatten(2, 3)


def _transposed(x: Tensor, columns: int) -> Tensor:
    """The rows of an image laid end to end along axis 1 -> its columns laid end to end."""
    return x.unflatten(1, (-1, columns)).transpose(1, 2).flatten(1, 2)


def refuse_packed(cu_seqlens: Tensor | None) -> None:
    """Raise ConfigError if there are offsets."""
    if cu_seqlens is not None:
        raise ConfigError(
            "packed sequences (cu_seqlens or a mask) have no ONNX form; expected one length for all"
        )
