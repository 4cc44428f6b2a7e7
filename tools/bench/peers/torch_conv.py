"""Convolution and SiLU as PyTorch code writes them today, on (b, l, d) activations."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def conv(x: Tensor, weight: Tensor) -> Tensor:
    """x (b, l, d), weight (d, k) -> silu(causal depthwise convolution) (b, l, d), as in Mamba."""
    d, k = weight.shape
    y = F.conv1d(x.transpose(1, 2), weight.unsqueeze(1), padding=k - 1, groups=d)
    return F.silu(y[..., : x.shape[1]]).transpose(1, 2)
