"""The native sum of powers as a differentiable operator.

The two launch functions below are the only place that calls the kernel, whichever way a call takes
through PyTorch (see `library_autograd`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import native
from .checks import wider_complex
from .library import Arguments, Kernel, Results
from .library_autograd import Differentiable

NAME = "log_vandermonde"
_REAL_OF = {torch.complex64: torch.float32, torch.complex128: torch.float64}


def log_vandermonde_native(v: Tensor, x: Tensor, l: int) -> Tensor:
    """Return K; record the call for autograd if a gradient is wanted."""
    dtype = wider_complex(v, x)
    v, x = v.to(dtype), x.to(dtype)
    if v.dim() == 3:
        return _sum_of_powers(v, x, l)[0]
    leading, (h, n) = v.shape[:-2], x.shape
    K = _sum_of_powers(v.reshape(leading.numel(), h, n), x, l)[0]
    return K.view(*leading, h, l)


def _launch_forward(v: Tensor, x: Tensor, l: int, save_for_backward: bool) -> Results:
    """Run the native kernel. The second result stands for what the gradient needs: nothing."""
    return native.log_vandermonde_forward(v, x, l), None


def _launch_backward(
    grad_K: Tensor, v: Tensor, x: Tensor, want_v: bool, want_x: bool
) -> tuple[Tensor | None, ...]:
    """Run the native kernel; return the gradients of v and x."""
    return native.log_vandermonde_backward(grad_K, v, x, wanted=(want_v, want_x))


def _fake_forward(v: Tensor, x: Tensor, l: int, save_for_backward: bool) -> Results:
    return v.new_empty((v.shape[0], v.shape[1], l), dtype=_REAL_OF[v.dtype]), None


def _fake_backward(grad_K: Tensor, v: Tensor, x: Tensor, want_v: bool, want_x: bool) -> Results:
    return (
        v.new_empty(v.shape) if want_v else None,
        x.new_empty(x.shape) if want_x else None,
    )


def _backward_arguments(
    saved: Arguments, options: Arguments, grads: Arguments, wanted: Arguments
) -> Arguments:
    (v, _), (l,) = saved, options
    grad_K = grads[0]
    if grad_K is None:
        grad_K = torch.zeros((*v.shape[:2], l), dtype=_REAL_OF[v.dtype], device=v.device)
    return (grad_K, *saved, *wanted[:2])


_sum_of_powers = Differentiable(
    NAME,
    Kernel(
        "log_vandermonde_forward",
        "(Tensor v, Tensor x, SymInt l, bool save_for_backward) -> (Tensor, Tensor)",
        _launch_forward,
        _fake_forward,
        folds=lambda *_: (True, False, False, False),
    ),
    Kernel(
        "log_vandermonde_backward",
        "(Tensor grad_K, Tensor v, Tensor x, bool want_v, bool want_x) -> (Tensor, Tensor)",
        _launch_backward,
        _fake_backward,
    ),
    n_results=1,
    save=lambda arguments, results: arguments[:2],
    backward_arguments=_backward_arguments,
)
