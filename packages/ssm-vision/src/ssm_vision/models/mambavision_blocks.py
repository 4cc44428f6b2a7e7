"""The residual blocks of MambaVision: of convolutions, and of a mixer or attention with an MLP.

Source: Hatamizadeh & Kautz 2025, arXiv:2407.08083, section 3.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssm_core.block import DropPath
from ssm_core.norm import LayerNorm
from ssm_core.shapes import Activations
from ssm_core.units import BlockAdapter, hidden_channels
from ssm_vision.models.image_model import FeatureMap
from ssm_vision.models.mambavision_config import MambaVisionConfig
from ssm_vision.models.mambavision_mixer import make_linear
from ssm_vision.models.removable import attention_units, the_one_size
from ssm_vision.models.window import Neighbours


class ConvBlock(nn.Module):
    """x + y with y = BN(conv(gelu(BN(conv(x))))), 3 x 3; the GELU is the one with tanh.

    With `layer_scale` a learned factor per channel, starting there, multiplies y. Between the
    convolutions there are as many channels as in x, or `hidden`.
    """

    branches = ("norm2",)

    def __init__(
        self, channels: int, drop_path: float, layer_scale: float | None, hidden: int | None = None
    ) -> None:
        super().__init__()
        hidden = channels if hidden is None else hidden
        self.conv1 = nn.Conv2d(channels, hidden, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, channels, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(channels)
        self.gamma = _scale(channels, layer_scale)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: FeatureMap) -> FeatureMap:
        y = F.gelu(self.norm1(self.conv1(x)), approximate="tanh")
        y = self.norm2(self.conv2(y))
        if self.gamma is not None:
            y = y * self.gamma.to(y.dtype).view(-1, 1, 1)
        return x + self.drop_path(y)

    def resized(self, sizes: Mapping[str, Any]) -> ConvBlock:
        """Return a new, untrained block with `sizes` = {"hidden": channels between}.

        Raises:
            ConfigError: other sizes.
        """
        hidden = the_one_size("ConvBlock", "hidden", sizes)
        layer_scale = None if self.gamma is None else 1.0
        return ConvBlock(self.conv1.in_channels, self.drop_path.rate, layer_scale, hidden)

    def removable_units(self) -> BlockAdapter:
        """Channels between the convolutions; BatchNorm looks at each of them by itself."""
        rows = [f"conv1.{name}" for name in ("weight", "bias")]
        rows += [f"norm1.{name}" for name in ("weight", "bias", "running_mean", "running_var")]
        hidden = self.conv1.out_channels
        return BlockAdapter((hidden_channels(hidden, tuple(rows), "conv2.weight"),))


class Attention(nn.Module):
    """Multi-head self-attention, (b, l, d) -> (b, l, d), scale 1/sqrt(d / heads), no positions.

    Parameters: qkv (3d, d; rows queries, keys, values), proj (d, d); with a `head_width` other than
    d / heads (what is left when heads are removed) h p instead of d inside.

    Cost: O(b l^2 d + b l d^2) time.
    """

    def __init__(
        self, d_model: int, n_heads: int, config: MambaVisionConfig, head_width: int | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.n_heads = n_heads
        self.head_width = d_model // n_heads if head_width is None else head_width
        self.dropout = config.attention_dropout
        inner = n_heads * self.head_width
        self.qkv = make_linear(d_model, 3 * inner, bias=config.qkv_bias)
        self.proj = make_linear(inner, d_model)
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

    def resized(self, sizes: Mapping[str, Any]) -> Attention:
        """Return a new, untrained layer with `sizes` = {"n_heads": heads}, as wide as these.

        Raises:
            ConfigError: other sizes.
        """
        n_heads = the_one_size("Attention", "n_heads", sizes)
        return Attention(self.qkv.in_features, n_heads, self.config, self.head_width)

    def removable_units(self) -> BlockAdapter:
        """Heads."""
        return attention_units(self)


class Mlp(nn.Module):
    """Two linear maps with an exact GELU between, on every step by itself."""

    def __init__(self, d_model: int, config: MambaVisionConfig, hidden: int | None = None) -> None:
        super().__init__()
        self.config = config
        hidden = int(d_model * config.mlp_ratio) if hidden is None else hidden
        self.fc1 = make_linear(d_model, hidden)
        self.fc2 = make_linear(hidden, d_model)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Activations) -> Activations:
        return self.drop(self.fc2(self.drop(F.gelu(self.fc1(x)))))

    def resized(self, sizes: Mapping[str, Any]) -> Mlp:
        """Return a new, untrained MLP with `sizes` = {"hidden": hidden channels}.

        Raises:
            ConfigError: other sizes.
        """
        return Mlp(self.fc1.in_features, self.config, the_one_size("Mlp", "hidden", sizes))

    def removable_units(self) -> BlockAdapter:
        """Hidden channels."""
        rows = ("fc1.weight", "fc1.bias")
        channels = hidden_channels(self.fc1.out_features, rows, "fc2.weight")
        return BlockAdapter((channels,), ("fc2.weight", "fc2.bias"))


class MixedBlock(nn.Module):
    """r = x + gamma_1 mixer(norm1(x)), then r + gamma_2 mlp(norm2(r)), over tokens (b, l, d).

    In training each branch is dropped per sequence: in windows, those of one image independently.
    """

    branches = ("mixer", "mlp")

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
