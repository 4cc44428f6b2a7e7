"""The compiled kernel generators of S4D and S4: checked tensors in, tensors out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import native_extension as extension
from .native_extension import address, contiguous

_CODES = {torch.complex64: 0, torch.complex128: 1}  # those of the parts
_REAL_OF = {torch.complex64: torch.float32, torch.complex128: torch.float64}


def _powers(v: Tensor, x: Tensor, l: int) -> Any:
    """The C++ description of one sum of powers; the tensors, contiguous, must outlive it."""
    kernels = extension.module_for(v)
    inputs = kernels.VandermondeInputs()
    inputs.set_sizes((*v.shape, l), _CODES[v.dtype])
    inputs.set_tensors(v.data_ptr(), x.data_ptr())
    inputs.set_mode(torch.get_num_threads())
    extension.place(inputs, kernels, v)
    return inputs


def log_vandermonde_forward(v: Tensor, x: Tensor, l: int) -> Tensor:
    """Sum the powers: K (c, h, l), of v (c, h, n) and x (h, n) of one complex type."""
    v, x = contiguous(v), contiguous(x)
    channels, h, n = v.shape
    K = v.new_empty((channels, h, l), dtype=_REAL_OF[v.dtype])
    if K.numel() == 0:
        return K
    if n == 0:
        return K.zero_()
    extension.module_for(v).log_vandermonde_forward(_powers(v, x, l), K.data_ptr())
    return K


def log_vandermonde_backward(
    grad_K: Tensor, v: Tensor, x: Tensor, *, wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of (v, x), None for those not wanted; bit-equal for any number of threads."""
    v, x, grad_K = contiguous(v), contiguous(x), contiguous(grad_K)
    grads = _empty_gradients((v, x), wanted)
    if grad_K.numel() == 0 or v.numel() == 0:
        return _zeros(grads)
    inputs = _powers(v, x, grad_K.shape[-1])
    extension.module_for(v).log_vandermonde_backward(
        inputs, grad_K.data_ptr(), (address(grads[0]), address(grads[1]))
    )
    return grads[0], grads[1]


def _fractions(v: Tensor, z: Tensor, w: Tensor) -> Any:
    """The C++ description of one sum of fractions; the tensors, contiguous, must outlive it."""
    kernels = extension.module_for(v)
    inputs = kernels.CauchyInputs()
    inputs.set_sizes((*v.shape, z.shape[-1]), _CODES[v.dtype])
    inputs.set_tensors(v.data_ptr(), z.data_ptr(), w.data_ptr(), z.dim() == 2)
    inputs.set_mode(torch.get_num_threads())
    extension.place(inputs, kernels, v)
    return inputs


def cauchy_forward(v: Tensor, z: Tensor, w: Tensor) -> Tensor:
    """Sum the fractions: R (c, h, k), of v (c, h, n), z (k,) or (h, k), w (h, n) of one type."""
    v, z, w = contiguous(v), contiguous(z), contiguous(w)
    channels, h, n = v.shape
    R = v.new_empty((channels, h, z.shape[-1]))
    if R.numel() == 0:
        return R
    if n == 0:
        return R.zero_()
    extension.module_for(v).cauchy_forward(_fractions(v, z, w), R.data_ptr())
    return R


def cauchy_backward(
    grad_R: Tensor, v: Tensor, z: Tensor, w: Tensor, *, wanted: tuple[bool, bool, bool]
) -> tuple[Tensor | None, ...]:
    """Gradients of (v, z, w), None for those not wanted; bit-equal for any number of threads."""
    v, z, w, grad_R = contiguous(v), contiguous(z), contiguous(w), contiguous(grad_R)
    grads = _empty_gradients((v, z, w), wanted)
    if grad_R.numel() == 0 or v.numel() == 0:
        return _zeros(grads)
    extension.module_for(v).cauchy_backward(
        _fractions(v, z, w), grad_R.data_ptr(), tuple(address(grad) for grad in grads)
    )
    return grads


def _empty_gradients(
    tensors: tuple[Tensor, ...], wanted: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    return tuple(
        torch.empty_like(x) if want else None for x, want in zip(tensors, wanted, strict=True)
    )


def _zeros(grads: tuple[Tensor | None, ...]) -> Any:
    for grad in grads:
        if grad is not None:
            grad.zero_()
    return grads
