"""mamba_ssm.ops.selective_scan_interface of the Vim fork: both directions of a block."""

from __future__ import annotations

from torch import Tensor

from ..backends import Backend
from .inner import InnerWeights, inner, project


def bimamba_inner_fn(
    xz: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor | None,
    x_proj_weight: Tensor,
    delta_proj_weight: Tensor,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    A: Tensor,
    A_b: Tensor,
    B: Tensor | None = None,
    C: Tensor | None = None,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    B_proj_bias: Tensor | None = None,
    C_proj_bias: Tensor | None = None,
    delta_softplus: bool = True,
) -> Tensor:
    """Compute `mamba_inner_fn` with a second scan, backwards, added before the last projection.

    Of the Vim fork (bimamba "v1"): both directions share the convolution and the projections.

    Args:
        A_b: (d, n) state matrix of the backward scan.

        The others as in `mamba_inner_fn`.

    Returns:
        (b, l, m). Its gradient is that of the sum of both scans, whereas the fork's own backward
        pass leaves out the share of the backward scan in the gradient of z.

    Source: Zhu et al. 2024, arXiv:2401.09417.
    """
    weights = InnerWeights(
        *(conv1d_weight, conv1d_bias, x_proj_weight, delta_proj_weight, A, B, C, D, delta_bias),
        *(B_proj_bias, C_proj_bias, delta_softplus),
    )
    y = inner(xz, weights, Backend.AUTO, A_b=A_b)
    return project(y, out_proj_weight, out_proj_bias)


def bimamba_inner_ref(
    xz: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor | None,
    x_proj_weight: Tensor,
    delta_proj_weight: Tensor,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    A: Tensor,
    A_b: Tensor,
    B: Tensor | None = None,
    C: Tensor | None = None,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    B_proj_bias: Tensor | None = None,
    C_proj_bias: Tensor | None = None,
    delta_softplus: bool = True,
) -> Tensor:
    """Compute what `bimamba_inner_fn` does with the operators' references."""
    weights = InnerWeights(
        *(conv1d_weight, conv1d_bias, x_proj_weight, delta_proj_weight, A, B, C, D, delta_bias),
        *(B_proj_bias, C_proj_bias, delta_softplus),
    )
    y = inner(xz, weights, Backend.REFERENCE, A_b=A_b)
    return project(y, out_proj_weight, out_proj_bias)
