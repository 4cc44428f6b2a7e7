"""The native Cauchy sum as a differentiable operator.

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

NAME = "cauchy"


def cauchy_native(v: Tensor, z: Tensor, w: Tensor) -> Tensor:
    """Return R; record the call for autograd if a gradient is wanted."""
    dtype = wider_complex(v, z, w)
    v, z, w = v.to(dtype), z.to(dtype), w.to(dtype)
    if v.dim() == 3:
        return _sum_of_fractions(v, z, w)[0]
    leading, (h, n) = v.shape[:-2], w.shape
    R = _sum_of_fractions(v.reshape(leading.numel(), h, n), z, w)[0]
    return R.view(*leading, h, z.shape[-1])


def _launch_forward(v: Tensor, z: Tensor, w: Tensor, save_for_backward: bool) -> Results:
    """Run the native kernel. The second result stands for what the gradient needs: nothing."""
    return native.cauchy_forward(v, z, w), None


def _launch_backward(
    grad_R: Tensor, v: Tensor, z: Tensor, w: Tensor, want_v: bool, want_z: bool, want_w: bool
) -> tuple[Tensor | None, ...]:
    """Run the native kernel; return the gradients of v, z and w."""
    return native.cauchy_backward(grad_R, v, z, w, wanted=(want_v, want_z, want_w))


def _fake_forward(v: Tensor, z: Tensor, w: Tensor, save_for_backward: bool) -> Results:
    return v.new_empty((v.shape[0], v.shape[1], z.shape[-1])), None


def _fake_backward(
    grad_R: Tensor, v: Tensor, z: Tensor, w: Tensor, *wanted: bool
) -> tuple[Tensor | None, ...]:
    return tuple(
        x.new_empty(x.shape) if want else None for x, want in zip((v, z, w), wanted, strict=True)
    )


def _backward_arguments(
    saved: Arguments, options: Arguments, grads: Arguments, wanted: Arguments
) -> Arguments:
    v, z, _ = saved
    grad_R = grads[0]
    if grad_R is None:
        grad_R = torch.zeros((*v.shape[:2], z.shape[-1]), dtype=v.dtype, device=v.device)
    return (grad_R, *saved, *wanted[:3])


_sum_of_fractions = Differentiable(
    NAME,
    Kernel(
        "cauchy_forward",
        "(Tensor v, Tensor z, Tensor w, bool save_for_backward) -> (Tensor, Tensor)",
        _launch_forward,
        _fake_forward,
        folds=lambda *_: (True, False, False, False),
    ),
    Kernel(
        "cauchy_backward",
        "(Tensor grad_R, Tensor v, Tensor z, Tensor w, bool want_v, bool want_z, bool want_w) "
        "-> (Tensor, Tensor, Tensor)",
        _launch_backward,
        _fake_backward,
    ),
    n_results=1,
    save=lambda arguments, results: arguments[:3],
    backward_arguments=_backward_arguments,
)
