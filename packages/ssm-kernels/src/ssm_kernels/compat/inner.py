"""The inside of a Mamba block: what all `*_inner_fn` of the original share."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from ..backends import Backend
from ..causal_conv1d import causal_conv1d
from ..selective_scan import selective_scan
from .norms import normalize
from .selective_scan import ScanTensors, complex_pairs, steps_second


class InnerWeights(NamedTuple):
    conv1d_weight: Tensor
    conv1d_bias: Tensor | None
    x_proj_weight: Tensor
    delta_proj_weight: Tensor
    A: Tensor
    B: Tensor | None
    C: Tensor | None
    D: Tensor | None
    delta_bias: Tensor | None
    B_proj_bias: Tensor | None
    C_proj_bias: Tensor | None
    delta_softplus: bool


class InnerNorms(NamedTuple):
    """Weights of the RMS norms of FalconMamba; None leaves one out."""

    B: Tensor | None
    C: Tensor | None
    delta: Tensor | None
    eps: float


NO_NORMS = InnerNorms(None, None, None, 1e-6)


def inner(
    xz: Tensor,
    weights: InnerWeights,
    backend: Backend,
    norms: InnerNorms = NO_NORMS,
    A_b: Tensor | None = None,
) -> Tensor:
    """Return y (b, l, d), gated; with `A_b` the sum of a forward and a backward scan."""
    x, z = xz.transpose(1, 2).chunk(2, dim=2)
    taps = weights.conv1d_weight.squeeze(1)
    u = causal_conv1d(x, taps, weights.conv1d_bias, "silu", backend=backend)
    assert isinstance(u, Tensor)
    delta, B, C = _projections(u, weights, norms)
    tensors = ScanTensors(u, delta, weights.A, B, C, weights.D, z, weights.delta_bias)
    y = _scan(tensors, weights, backend)
    if A_b is None:
        return y
    return y + _scan(tensors._replace(A=A_b), weights, backend, reverse=True)


def project(y: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Apply the last projection to y (b, l, d), in the type autocast asks for or that of y."""
    return F.linear(y, weight, bias)


def _scan(
    tensors: ScanTensors, weights: InnerWeights, backend: Backend, reverse: bool = False
) -> Tensor:
    y = selective_scan(*tensors, bool(weights.delta_softplus), reverse=reverse, backend=backend)
    assert isinstance(y, Tensor)
    return y


def _projections(
    u: Tensor, weights: InnerWeights, norms: InnerNorms
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the step size (b, l, d), B and C as `ssm_kernels.selective_scan` takes them."""
    A, rank = weights.A, weights.delta_proj_weight.shape[1]
    width = A.shape[1] * (2 if A.is_complex() else 1)
    if A.is_complex() and any(norm is not None for norm in (norms.B, norms.C, norms.delta)):
        raise NotImplementedError(
            "mamba_inner_fn: b_rms_weight, c_rms_weight and dt_rms_weight are supported with a "
            "real A only; pass None"
        )
    rows = F.linear(u, weights.x_proj_weight)
    delta = F.linear(rows[..., :rank], weights.delta_proj_weight)
    if norms.delta is not None:
        delta = normalize(delta, norms.delta, None, norms.eps, is_rms=True)
    if weights.B is None:
        M = rows[..., rank : rank + width]
        B = _of_rows(M, weights.B_proj_bias, norms.B, norms.eps, A.is_complex())
    else:
        B = steps_second(weights.B, A)
    if weights.C is None:
        M = rows[..., -width:]
        C = _of_rows(M, weights.C_proj_bias, norms.C, norms.eps, A.is_complex())
    else:
        C = steps_second(weights.C, A)
    return delta, B, C


def _of_rows(
    M: Tensor, bias: Tensor | None, norm: Tensor | None, eps: float, is_complex: bool
) -> Tensor:
    """Return B or C (b, l, n) from its rows of the projection, with bias and norm."""
    if bias is not None:
        M = M + bias.to(M.dtype)
    if norm is not None:
        M = normalize(M, norm, None, eps, is_rms=True)
    return complex_pairs(M) if is_complex else M
