"""Layer norm and RMS norm as the stand-ins compute them: in float32, or float64 for float64."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..fused_rms_norm import fused_rms_norm


def wide_dtype(x: Tensor) -> torch.dtype:
    """Return the type of sums over entries of x."""
    return torch.float64 if x.dtype is torch.float64 else torch.float32


def normalize(
    x: Tensor, weight: Tensor, bias: Tensor | None, eps: float, *, is_rms: bool
) -> Tensor:
    """Norm over the last axis, times weight, plus bias, in the type of x.

    Args:
        x: (..., d).
        weight: (d,), any float type.
        bias: (d,) or None.
        eps: added to the variance, or to the mean square.
        is_rms: divide by the root of the mean square, without taking the mean away.

    Cost: O(size of x).
    Source: Ba et al. 2016, arXiv:1607.06450; Zhang & Sennrich 2019, arXiv:1910.07467.
    """
    wide = wide_dtype(x)
    scale = weight.to(wide)
    shift = None if bias is None else bias.to(wide)
    if not is_rms:
        return F.layer_norm(x.to(wide), x.shape[-1:], scale, shift, eps).to(x.dtype)
    values = x.to(wide)
    y = fused_rms_norm(values, scale, eps)
    if y is None:
        y = F.rms_norm(values, x.shape[-1:], scale, eps)
    return (y if shift is None else y + shift).to(x.dtype)
