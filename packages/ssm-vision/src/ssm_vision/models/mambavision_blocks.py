"""The residual blocks of MambaVision: of convolutions, and of a mixer or attention with an MLP.

Source: Hatamizadeh & Kautz 2025, arXiv:2407.08083, section 3.1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssm_core.block import DropPath
from ssm_core.norm import LayerNorm
from ssm_core.shapes import Activations
from ssm_vision.models.image_model import FeatureMap
from ssm_vision.models.mambavision_config import MambaVisionConfig
from ssm_vision.models.mambavision_mixer import make_linear
from ssm_vision.models.window import Neighbours


class ConvBlock(nn.Module):
    """x + y with y = BN(conv(gelu(BN(conv(x))))), 3 x 3; the GELU is the one with tanh.

    With `layer_scale` a learned factor per channel, starting there, multiplies y.
    """

    def __init__(self, channels: int, drop_path: float, layer_scale: float | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(channels)
        self.gamma = _scale(channels, layer_scale)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: FeatureMap) -> FeatureMap:
        y = F.gelu(self.norm1(self.conv1(x)), approximate="tanh")
        y = self.norm2(self.conv2(y))
        if self.gamma is not None:
            y = y * self.gamma.to(y.dtype).view(-1, 1, 1)
        return x + self.drop_path(y)


class Attention(nn.Module):
    """Multi-head self-attention, (b, l, d) -> (b, l, d), scale 1/sqrt(d / heads), no positions.

    Parameters: qkv (3d, d; rows queries, keys, values), proj (d, d).

    Cost: O(b l^2 d + b l d^2) time.
    """

    def __init__(self, d_model: int, n_heads: int, config: MambaVisionConfig) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.dropout = config.attention_dropout
        self.qkv = make_linear(d_model, 3 * d_model, bias=config.qkv_bias)
        self.proj = make_linear(d_model, d_model)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Activations, neighbours: Neighbours | None = None) -> Activations:
        """Attend from every step of x to all, or to its `neighbours` (l, l)."""
        heads = self.qkv(x).unflatten(2, (3, self.n_heads, -1))  # (b, l, 3, h, p)
        queries, keys, values = heads.permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(
            queries,
            keys,
            values,
            attn_mask=neighbours,
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.drop(self.proj(y.transpose(1, 2).flatten(2)))


class Mlp(nn.Module):
    """Two linear maps with an exact GELU between, on every step by itself."""

    def __init__(self, d_model: int, config: MambaVisionConfig) -> None:
        super().__init__()
        hidden = int(d_model * config.mlp_ratio)
        self.fc1 = make_linear(d_model, hidden)
        self.fc2 = make_linear(hidden, d_model)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Activations) -> Activations:
        return self.drop(self.fc2(self.drop(F.gelu(self.fc1(x)))))


class MixedBlock(nn.Module):
    """r = x + gamma_1 mixer(norm1(x)), then r + gamma_2 mlp(norm2(r)), over tokens (b, l, d).

    In training each branch is dropped per sequence: in windows, those of one image independently.
    """

    def __init__(
        self, d_model: int, mixer: nn.Module, drop_path: float, config: MambaVisionConfig
    ) -> None:
        super().__init__()
        self.norm1 = LayerNorm(d_model)
        self.mixer = mixer
        self.norm2 = LayerNorm(d_model)
        self.mlp = Mlp(d_model, config)
        self.gamma_1 = _scale(d_model, config.layer_scale)
        self.gamma_2 = _scale(d_model, config.layer_scale)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Activations, neighbours: Neighbours | None = None) -> Activations:
        """Add both branches to x; `neighbours` are for a mixer that is `Attention`."""
        given = () if neighbours is None else (neighbours,)
        x = x + self._scaled(self.mixer(self.norm1(x), *given), self.gamma_1)
        return x + self._scaled(self.mlp(self.norm2(x)), self.gamma_2)

    def _scaled(self, branch: Tensor, gamma: Tensor | None) -> Tensor:
        return self.drop_path(branch if gamma is None else branch * gamma)


def _scale(channels: int, start: float | None) -> nn.Parameter | None:
    return None if start is None else nn.Parameter(torch.full((channels,), float(start)))
