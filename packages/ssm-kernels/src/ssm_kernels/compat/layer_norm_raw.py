"""mamba_ssm.ops.triton.layer_norm: the forward pass alone, for copies of the original's scans."""

from __future__ import annotations

import torch
from torch import Tensor

from .layer_norm import Dropout, add
from .norms import normalize


# The arguments and their order are the original's.
@torch.no_grad()
def _layer_norm_fwd(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    eps: float,
    residual: Tensor | None = None,
    x1: Tensor | None = None,
    weight1: Tensor | None = None,
    bias1: Tensor | None = None,
    dropout_p: float = 0.0,
    rowscale: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
    residual_dtype: torch.dtype | None = None,
    is_rms_norm: bool = False,
    return_dropout_mask: bool = False,
) -> tuple[Tensor | None, ...]:
    """Compute `layer_norm_fn` of x (m, d) without recording a gradient; arguments as there.

    Args:
        out_dtype: of y and the second y; None means that of x.
        residual_dtype: of the sum if there is no residual; None means that of x.
        return_dropout_mask: also return which entries were kept.

    Returns:
        y (m, d), the second y or None, the means (m,) (None for the RMS norm), what deviations were
        multiplied by (m,), the sum (m, d), None for the seeds of the original's dropout, and the
        masks of x and x1 or None.
    """
    added = add(x, x1, residual, Dropout(dropout_p, rowscale), False)
    total = added.total
    stream = added.residual
    if residual is None and residual_dtype is not None:
        stream = total.to(residual_dtype)

    def norm(scale: Tensor, shift: Tensor | None) -> Tensor:
        return normalize(total, scale, shift, eps, is_rms=is_rms_norm).to(out_dtype or x.dtype)

    mean = None if is_rms_norm else total.mean(dim=-1)
    deviation = total if mean is None else total - mean.unsqueeze(-1)
    rstd = (deviation.square().mean(dim=-1) + eps).rsqrt()
    masks = added.masks if return_dropout_mask else (None, None)
    second = None if weight1 is None else norm(weight1, bias1)
    return norm(weight, bias), second, mean, rstd, stream, None, *masks
