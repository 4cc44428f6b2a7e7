"""mamba_ssm.ops.selective_scan_interface: the inside of a Mamba block as one call."""

from __future__ import annotations

from torch import Tensor

from ..backends import Backend
from .inner import InnerNorms, InnerWeights, inner, project


def mamba_inner_fn(
    xz: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor | None,
    x_proj_weight: Tensor,
    delta_proj_weight: Tensor,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    A: Tensor,
    B: Tensor | None = None,
    C: Tensor | None = None,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    B_proj_bias: Tensor | None = None,
    C_proj_bias: Tensor | None = None,
    delta_softplus: bool = True,
    checkpoint_lvl: int = 1,
    b_rms_weight: Tensor | None = None,
    c_rms_weight: Tensor | None = None,
    dt_rms_weight: Tensor | None = None,
    b_c_dt_rms_eps: float = 1e-6,
) -> Tensor:
    """Split, convolve, project, scan, gate and project: a Mamba block after its input projection.

    u = silu(causal_conv1d(x)); (dt, B, C) = x_proj u;
    y = scan(u, delta_proj dt, A, B, C, D) silu(z); the result is out_proj y.

    Args:
        xz: (b, 2d, l): x, then z.
        conv1d_weight: (d, 1, k) taps; the last one is for the present step.
        conv1d_bias: (d,) or None.
        x_proj_weight: (R + 2n, d): rows of the step size, of B, of C. Without the rows of B (or C)
            if it is given; twice as many of them with a complex A, real and imaginary in turn.
        delta_proj_weight: (d, R).
        out_proj_weight: (m, d).
        out_proj_bias: (m,) or None.
        A: (d, n), real or complex.
        B: as in `selective_scan_fn`; None takes it from x_proj.
        C: like B.
        D: (d,) skip; None means 0.
        delta_bias: (d,); None means 0.
        B_proj_bias: (n,) added to the B of x_proj; 2n numbers with a complex A.
        C_proj_bias: like B_proj_bias.
        delta_softplus: pass the step size through a softplus.
        checkpoint_lvl: accepted; what the backward pass computes again is decided by the operators.
        b_rms_weight: (n,) of an RMS norm of B over the states; None leaves it out.
        c_rms_weight: the same of C.
        dt_rms_weight: (d,) of an RMS norm of the step size over the channels, before its bias.
        b_c_dt_rms_eps: added to the mean squares of these three.

    Returns:
        (b, l, m). Under autocast the projections run in its type, the scan's parameters in float32.

    Raises:
        NotImplementedError: norms with a complex A.
        ShapeError, DTypeError, DeviceError: from the operators, whose axes are (b, l, d).

    Cost: O(b l d (R + n + k + m)) time; keeps O(b l d) numbers for the backward pass.
    Source: Gu & Dao 2023, arXiv:2312.00752, Fig. 3 and Algorithm 2.
    """
    weights = InnerWeights(
        *(conv1d_weight, conv1d_bias, x_proj_weight, delta_proj_weight, A, B, C, D, delta_bias),
        *(B_proj_bias, C_proj_bias, delta_softplus),
    )
    norms = InnerNorms(b_rms_weight, c_rms_weight, dt_rms_weight, b_c_dt_rms_eps)
    y = inner(xz, weights, Backend.AUTO, norms)
    return project(y, out_proj_weight, out_proj_bias)


def mamba_inner_ref(
    xz: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor | None,
    x_proj_weight: Tensor,
    delta_proj_weight: Tensor,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    A: Tensor,
    B: Tensor | None = None,
    C: Tensor | None = None,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    B_proj_bias: Tensor | None = None,
    C_proj_bias: Tensor | None = None,
    delta_softplus: bool = True,
) -> Tensor:
    """Compute what `mamba_inner_fn` does with the operators' references, differentiable twice."""
    weights = InnerWeights(
        *(conv1d_weight, conv1d_bias, x_proj_weight, delta_proj_weight, A, B, C, D, delta_bias),
        *(B_proj_bias, C_proj_bias, delta_softplus),
    )
    return project(inner(xz, weights, Backend.REFERENCE), out_proj_weight, out_proj_bias)


def mamba_inner_fn_no_out_proj(
    xz: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor | None,
    x_proj_weight: Tensor,
    delta_proj_weight: Tensor,
    A: Tensor,
    B: Tensor | None = None,
    C: Tensor | None = None,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    B_proj_bias: Tensor | None = None,
    C_proj_bias: Tensor | None = None,
    delta_softplus: bool = True,
) -> Tensor:
    """Compute `mamba_inner_fn` without its last projection (of the Vim fork).

    Arguments as there.

    Returns:
        (b, d, l), contiguous.

    Source: Zhu et al. 2024, arXiv:2401.09417, Algorithm 1.
    """
    weights = InnerWeights(
        *(conv1d_weight, conv1d_bias, x_proj_weight, delta_proj_weight, A, B, C, D, delta_bias),
        *(B_proj_bias, C_proj_bias, delta_softplus),
    )
    return inner(xz, weights, Backend.AUTO).transpose(1, 2).contiguous()
