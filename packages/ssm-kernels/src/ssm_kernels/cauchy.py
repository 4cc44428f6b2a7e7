"""The Cauchy sum of S4: checks and choice of a backend."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from .backends import Backend, choose_backend
from .cauchy_autograd import NAME, cauchy_native
from .checks import check_complex, wrong_shape
from .reference import cauchy_reference


class _Inputs(NamedTuple):
    v: Tensor
    z: Tensor
    w: Tensor


def cauchy(v: Tensor, z: Tensor, w: Tensor, *, backend: Backend | str = Backend.AUTO) -> Tensor:
    """Return R[..., h, k] = sum_n v[..., h, n] / (z[k] - w[h, n]) + conj(v) / (z[k] - conj(w)).

    The generating function of a diagonal state space model at the nodes z, of which one of each
    conjugate pair of states is stored (S4: w = dt Lambda, v = dt B C).

    Args:
        v: (..., h, n) numerators, complex64 or complex128, any strides. The leading axes (such as
            channels) share z and w.
        z: (k,) or (h, k) nodes, complex.
        w: (h, n) poles, complex.
        backend: "auto", or an implementation that must run; see `Backend`.

    Returns:
        R (..., h, k): complex128 if an argument is (the others are then converted in memory
        first), else complex64.

        The nodes are taken as they are: one that is NaN or infinite, or equals a pole, makes R
        there NaN or infinite, and with it the gradients that sum over nodes. So do distances
        |z - w| beyond about 1e19 or below 1e-19 (1e154 and 1e-154 in double precision), whose
        square leaves the range, or they count as 0. In S4 the node of w = -1 has z infinite: leave
        it out and put the limit in its place.

    Raises:
        ShapeError, DTypeError, DeviceError: an argument does not fit; the message names it.
        BackendError: a backend named explicitly cannot run; "auto" never raises this.

    Cost: 18 floating-point operations and 2 reciprocals per element of v and node, about twice
    that for the gradients of v and w and once more for that of z; no memory besides the results
    (backward: a partial sum per element of v and 512 nodes; for a gradient of z (k,) its terms
    (h, k)). Gradients are PyTorch's (conjugate); those of the native kernels cannot be
    differentiated again (the reference's can).
    Source: Gu, Goel & Re 2021, arXiv:2111.00396, section 3 (Cauchy kernel).
    """
    check_complex(NAME, _Inputs(v, z, w))
    if w.dim() != 2:
        raise wrong_shape(NAME, "w", w, "2 axes (h, n)")
    h, n = w.shape
    if v.dim() < 2 or v.shape[-2:] != w.shape:
        raise wrong_shape(NAME, "v", v, f"(..., h, n) = (..., {h}, {n}) like w")
    if z.dim() not in (1, 2) or (z.dim() == 2 and z.shape[0] != h):
        raise wrong_shape(NAME, "z", z, f"(k,) or (h, k) = ({h}, k)")
    if choose_backend(NAME, backend, v.device) is Backend.REFERENCE:
        return cauchy_reference(v, z, w)
    return cauchy_native(v, z, w)
