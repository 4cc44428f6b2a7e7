"""The convolution kernel of S4D, a sum of powers: checks and choice of a backend."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .backends import Backend, choose_backend
from .checks import check_complex, wrong_shape
from .errors import ArgumentError
from .log_vandermonde_autograd import NAME, log_vandermonde_native
from .reference import log_vandermonde_reference


class _Inputs(NamedTuple):
    v: Tensor
    x: Tensor


def log_vandermonde(
    v: Tensor, x: Tensor, l: int, *, backend: Backend | str = Backend.AUTO
) -> Tensor:
    """Return K[..., h, t] = 2 Re sum_n v[..., h, n] exp(t x[h, n]) for t = 0 ... l-1.

    The convolution kernel of a diagonal state space model of which one of each conjugate pair of
    states is stored (S4D): v = C B_bar and x = log A_bar, which is dt Lambda with zero-order hold.

    Args:
        v: (..., h, n) coefficients, complex64 or complex128, any strides. The leading axes (such as
            channels) share x.
        x: (h, n) logarithms of the powers, complex, per step.
        l: how many steps.
        backend: "auto", or an implementation that must run; see `Backend`.

    Returns:
        K (..., h, l), real: float64 if an argument is complex128 (the other one is then converted
        in memory first), else float32.

        The native kernels take the angle t Im x modulo a turn in double precision, so the error of
        a power does not grow with t: at l = 65536 that of K is below 1e-5 of its largest value in
        float32. The reference rounds the angle itself. Powers with Re x > 0 may overflow; what a
        step is then (infinite or NaN) is not defined.

    Raises:
        ShapeError, DTypeError, DeviceError, ArgumentError: an argument does not fit; the message
            names it.
        BackendError: a backend named explicitly cannot run; "auto" never raises this.

    Cost: 2 multiply-adds per element of v and step, 4 backward, and O(sqrt(l))
    exponentials per element of x on the way; no memory besides the results, which the backward
    pass does not need. The gradients of v and x are PyTorch's (conjugate); those of the native
    kernels cannot be differentiated again (the reference's can).
    Source: Gu, Gupta, Goel & Re 2022, arXiv:2206.11893, section 3.2 (Vandermonde product), and Gu,
    Goel & Re 2021, arXiv:2111.00396.
    """
    check_complex(NAME, _Inputs(v, x))
    if x.dim() != 2:
        raise wrong_shape(NAME, "x", x, "2 axes (h, n)")
    if v.dim() < 2 or v.shape[-2:] != x.shape:
        h, n = x.shape
        raise wrong_shape(NAME, "v", v, f"(..., h, n) = (..., {h}, {n}) like x")
    # a tuple: torch 2.6 cannot trace `int | SymInt`
    if isinstance(l, bool) or not isinstance(l, (int, torch.SymInt)):
        raise ArgumentError(f"{NAME}: l is {l!r}, expected a number of steps")
    if l < 0:
        raise ArgumentError(f"{NAME}: l is {l}, expected 0 or more steps")
    if choose_backend(NAME, backend, v.device) is Backend.REFERENCE:
        return log_vandermonde_reference(v, x, l)
    return log_vandermonde_native(v, x, l)
