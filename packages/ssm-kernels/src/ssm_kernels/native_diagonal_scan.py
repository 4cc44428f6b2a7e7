"""The compiled diagonal scan: checked tensors in, tensors out."""

from __future__ import annotations

import torch
from torch import Tensor

from . import native_extension as extension
from .native_extension import DTYPE_CODES, address, contiguous, resolved, view


def _is_broadcast(a: Tensor, u: Tensor) -> bool:
    return a.shape != u.shape


def _inputs(
    a: Tensor,
    u: Tensor,
    initial_state: Tensor | None,
    offsets: Tensor | None,
    *,
    reverse: bool,
) -> extension._native.DiagonalInputs:
    """The C++ description of one scan of tensors like u; they must outlive it."""
    inputs = extension._native.DiagonalInputs()
    batch, steps, channels = u.shape
    dtype = u.dtype.to_real() if u.is_complex() else u.dtype
    inputs.set_sizes((batch, steps, channels, DTYPE_CODES[dtype]), u.is_complex())
    if _is_broadcast(a, u):
        per_axis = tuple(own == full for own, full in zip(a.shape, u.shape, strict=True))
        inputs.set_a(view(a.expand(u.shape)), per_axis)  # type: ignore[arg-type]
    else:
        inputs.set_a(view(a), (True, True, True))
    sequences = batch if offsets is None else offsets.shape[0] - 1
    inputs.set_sequences(sequences, address(offsets), address(initial_state))
    inputs.set_mode(reverse, torch.get_num_threads())
    return inputs


def _state_shape(u: Tensor, offsets: Tensor | None) -> tuple[int, int]:
    return (u.shape[0] if offsets is None else offsets.shape[0] - 1, u.shape[2])


def _state_dtype(u: Tensor) -> torch.dtype:
    return torch.float32 if u.dtype in (torch.bfloat16, torch.float16) else u.dtype


def diagonal_scan_forward(
    a: Tensor,
    u: Tensor,
    initial_state: Tensor | None,
    offsets: Tensor | None,
    *,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    """The scan h = a h + u on the CPU: (h, final state).

    u: (b, l, d), any strides. a: of u's shape and dtype, any strides; or with some axes of size 1
    and then of the compute type: float32 for 16-bit u, otherwise u's. States: (b, d) of the
    compute type; (sequences, d) with `offsets`, (sequences + 1,) int64 on the CPU, b = 1.
    """
    a, u = resolved(a), resolved(u)
    initial_state = contiguous(initial_state)
    h = u.new_empty(u.shape)
    shape = _state_shape(u, offsets)
    if u.numel() == 0:
        return h, _or_zeros(initial_state, u, shape)
    offsets = contiguous(offsets)
    final_state = u.new_empty(shape, dtype=_state_dtype(u))
    inputs = _inputs(a, u, initial_state, offsets, reverse=reverse)
    extension._native.diagonal_scan_forward(inputs, view(u), view(h), final_state.data_ptr())
    return h, final_state


def diagonal_scan_backward(
    grad_h: Tensor,
    grad_final_state: Tensor | None,
    a: Tensor,
    h: Tensor,
    initial_state: Tensor | None,
    offsets: Tensor | None,
    *,
    reverse: bool,
    wanted: tuple[bool, bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of (a, u, initial_state), None for those not wanted.

    Arguments as in diagonal_scan_forward; h: its result, read for the gradient of a alone.
    grad_h: (b, l, d) of h's dtype, any strides. Gradients are contiguous, that of a of its shape.
    The result is bit-equal for any number of threads.
    """
    a, h, grad_h = resolved(a), resolved(h), resolved(grad_h)
    initial_state, grad_final_state = contiguous(initial_state), contiguous(grad_final_state)
    shape = _state_shape(h, offsets)
    if h.numel() == 0:
        grad_initial = _or_zeros(grad_final_state, h, shape)
        gradients = a.new_zeros(a.shape), h.new_empty(h.shape), grad_initial
        grad_a, grad_u, grad_state = (
            grad if want else None for grad, want in zip(gradients, wanted, strict=True)
        )
        return grad_a, grad_u, grad_state
    offsets = contiguous(offsets)
    grad_a = a.new_empty(a.shape) if wanted[0] else None
    grad_u = h.new_empty(h.shape) if wanted[1] else None
    grad_state = h.new_empty(shape, dtype=_state_dtype(h)) if wanted[2] else None
    inputs = _inputs(a, h, initial_state, offsets, reverse=reverse)
    extension._native.diagonal_scan_backward(
        inputs,
        view(grad_h),
        address(grad_final_state),
        view(h),
        view(grad_u),
        (address(grad_a), address(grad_state)),
    )
    return grad_a, grad_u, grad_state


def _or_zeros(state: Tensor | None, u: Tensor, shape: tuple[int, int]) -> Tensor:
    """What comes out of no steps: a copy of the state that went in."""
    return u.new_zeros(shape, dtype=_state_dtype(u)) if state is None else state.clone()
