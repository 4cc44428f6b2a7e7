"""The compiled diagonal scan: checked tensors in, tensors out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import native_extension as extension
from .native_extension import DTYPE_CODES, address, contiguous, resolved

# A complex number is two real ones.
_CODES = {**DTYPE_CODES, torch.complex64: 0, torch.complex128: 1}
_STATE_DTYPES = {torch.bfloat16: torch.float32, torch.float16: torch.float32}  # others: as u


def _view(tensor: Tensor | None) -> tuple[int, int, int, int, int]:
    """Address, strides and dtype code of a (b, l, d) tensor; strides count complex numbers."""
    if tensor is None:
        return (0, 0, 0, 0, 0)
    stride_b, stride_l, stride_d = tensor.stride()
    return (tensor.data_ptr(), stride_b, stride_l, stride_d, _CODES[tensor.dtype])


def _inputs(
    a: Tensor,
    u: Tensor,
    initial_state: Tensor | None,
    offsets: Tensor | None,
    *,
    reverse: bool,
) -> Any:
    """The C++ description of one scan of tensors like u; all must outlive it."""
    inputs = extension.module_for(u).DiagonalInputs()
    batch, steps, channels = shape = u.shape
    inputs.set_sizes((batch, steps, channels, _CODES[u.dtype]), u.is_complex())
    if a.shape == shape:
        inputs.set_a(_view(a), (True, True, True))
    else:
        own = (a.shape[0] == batch, a.shape[1] == steps, a.shape[2] == channels)
        inputs.set_a(_view(a.expand(shape)), own)
    if offsets is not None:
        inputs.set_packing(offsets.data_ptr(), offsets.shape[0] - 1)
    inputs.set_mode(address(initial_state), reverse, torch.get_num_threads())
    return inputs


def _empty_state(u: Tensor, offsets: Tensor | None) -> Tensor:
    sequences = u.shape[0] if offsets is None else offsets.shape[0] - 1
    return u.new_empty((sequences, u.shape[2]), dtype=_STATE_DTYPES.get(u.dtype))


def _state_of_no_steps(state: Tensor | None, u: Tensor, offsets: Tensor | None) -> Tensor:
    """What comes out where there is no number to compute: a copy of the state that went in."""
    return _empty_state(u, offsets).zero_() if state is None else state.clone()


def diagonal_scan_forward(
    a: Tensor,
    u: Tensor,
    initial_state: Tensor | None,
    *,
    reverse: bool,
    offsets: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The scan h = a h + u: (h, final state).

    u: (b, l, d), any strides. a: of u's shape and dtype, any strides, or of the compute type
    (float32 for 16-bit u, else u's type) and then with any axis of size 1 that serves all. States:
    (b, d) of the compute type. offsets: int64, contiguous, where packed sequences begin, and the
    end; states then have one row per sequence.
    """
    a, u, initial_state = resolved(a), resolved(u), contiguous(initial_state)
    h = u.new_empty(u.shape)
    if u.numel() == 0:
        return h, _state_of_no_steps(initial_state, u, offsets)
    final_state = _empty_state(u, offsets)
    inputs = _inputs(a, u, initial_state, offsets, reverse=reverse)
    kernels = extension.module_for(u)
    extension.place(inputs, kernels, u)
    kernels.diagonal_scan_forward(inputs, _view(u), _view(h), final_state.data_ptr())
    return h, final_state


def diagonal_scan_backward(
    grad_h: Tensor,
    grad_final_state: Tensor | None,
    a: Tensor,
    h: Tensor,
    initial_state: Tensor | None,
    *,
    reverse: bool,
    wanted: tuple[bool, bool, bool],
    offsets: Tensor | None = None,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of (a, u, initial_state), None for those not wanted.

    Arguments as in diagonal_scan_forward; h: its result, read for the gradient of a alone.
    grad_h: (b, l, d) of h's dtype, any strides. Gradients are contiguous, that of a of its shape.
    The result is bit-equal for any number of threads.
    """
    a, h, grad_h = resolved(a), resolved(h), resolved(grad_h)
    initial_state, grad_final_state = contiguous(initial_state), contiguous(grad_final_state)
    grad_a = a.new_empty(a.shape) if wanted[0] else None
    grad_u = h.new_empty(h.shape) if wanted[1] else None
    if h.numel() == 0:
        if grad_a is not None:
            grad_a.zero_()
        state = _state_of_no_steps(grad_final_state, h, offsets) if wanted[2] else None
        return grad_a, grad_u, state
    grad_state = _empty_state(h, offsets) if wanted[2] else None
    inputs = _inputs(a, h, initial_state, offsets, reverse=reverse)
    kernels = extension.module_for(h)
    extension.place(inputs, kernels, h)
    kernels.diagonal_scan_backward(
        inputs,
        _view(grad_h),
        address(grad_final_state),
        _view(h),
        _view(grad_u),
        (address(grad_a), address(grad_state)),
    )
    return grad_a, grad_u, grad_state
