"""MambaVision: convolutions on the large maps, Mamba and then attention on the small ones.

    images (b, c, y, x) -> stem, 1/4 -> level 0 (conv blocks) -> 1/8 -> level 1 (conv blocks)
    -> 1/16 -> level 2 (windows: mixer, then attention) -> 1/32 -> level 3 (the same)
    -> norm, mean over the map -> logits (b, classes)

Sizes halve rounding up. Levels 2 and 3 cut their map into windows once; zeros that fill up the last
windows are tokens like others there, in scans and in attention, and are cut off behind the level.
Nothing depends on the size of the image, so that any will do.

Source: Hatamizadeh & Kautz 2025, arXiv:2407.08083.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn

from ssm_core import DataInfo, build_mixer
from ssm_core.norm import at_least_float32
from ssm_vision.models.image_model import FeatureMap, ImageModel, Images, Stage
from ssm_vision.models.mambavision_blocks import Attention, ConvBlock, MixedBlock
from ssm_vision.models.mambavision_config import MambaVisionConfig
from ssm_vision.models.mambavision_mixer import make_linear
from ssm_vision.models.preset import Preset
from ssm_vision.models.window import merge_windows, neighbours_of, split_windows

LEVELS = 4
#: the first level with windows
MIXED_FROM = 2
Call: TypeAlias = Callable[..., Any]
"""`call(block, *inputs)`: how a model calls its blocks."""


class Stem(nn.Module):
    """Two 3 x 3 convolutions with BatchNorm and ReLU."""

    def __init__(self, in_chans: int, config: MambaVisionConfig) -> None:
        super().__init__()
        first, second = config.stem_strides
        self.conv_down = nn.Sequential(
            nn.Conv2d(in_chans, config.in_dim, 3, first, 1, bias=False),
            nn.BatchNorm2d(config.in_dim, eps=1e-4),
            nn.ReLU(),
            nn.Conv2d(config.in_dim, config.dim, 3, second, 1, bias=False),
            nn.BatchNorm2d(config.dim, eps=1e-4),
            nn.ReLU(),
        )

    def forward(self, images: Images) -> FeatureMap:
        return self.conv_down(images)


class Downsample(nn.Module):
    """A convolution to half the size, rounded up, and twice the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduction = nn.Sequential(nn.Conv2d(channels, 2 * channels, 3, 2, 1, bias=False))

    def forward(self, x: FeatureMap) -> FeatureMap:
        return self.reduction(x)


class Level(nn.Module):
    """The blocks of one size, (b, d, y, x) -> (b, d, y, x); `downsample` leads to the next one."""

    def __init__(self, blocks: Sequence[nn.Module], downsample: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: FeatureMap, call: Call) -> FeatureMap:
        for block in self.blocks:
            x = call(block, x)
        return x


class WindowedLevel(Level):
    """Mixers, then attention, in windows of the map.

    With a sliding window only the mixers work in windows. Then the map is put together, without
    the zeros at its border, and attention runs on all of it, under a mask of l x l positions.
    """

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        downsample: nn.Module,
        side: int,
        sliding: tuple[int, int],
    ) -> None:
        """Make a level of windows of `side` x `side`, with `sliding` = (window, dilation)."""
        super().__init__(blocks, downsample)
        self.side = side
        self.sliding = sliding

    def forward(self, x: FeatureMap, call: Call) -> FeatureMap:
        window, dilation = self.sliding
        # not counted by `mixers_of`: blocks of either kind may have been taken out
        in_windows = sum(not (window and has_attention(block)) for block in self.blocks)
        # the residual stream of the level is float32, also under autocast
        tokens = at_least_float32(split_windows(x, self.side))
        for block in self.blocks[:in_windows]:
            tokens = call(block, tokens)
        y = merge_windows(tokens, self.side, x.shape)
        if in_windows < len(self.blocks):
            rows, columns = y.shape[2:]
            neighbours = neighbours_of(rows, columns, window, dilation, y.device)
            tokens = y.flatten(2).transpose(1, 2)
            for block in self.blocks[in_windows:]:
                tokens = call(block, tokens, neighbours)
            y = tokens.transpose(1, 2).unflatten(2, (rows, columns))
        return y.to(x.dtype)


class MambaVision(ImageModel):
    """Images (b, c, y, x) of any size -> logits (b, classes).

    Maps are channel-last inside. `model.to(memory_format=torch.channels_last)` saves the
    convolutions from converting their weights at every call.

    Cost: O(b y x) at a fixed window size; parameters and accuracy of the published sizes are in
    `PRESETS` and in the paper's Table 1.
    """

    hierarchical = True

    def __init__(self, config: MambaVisionConfig | None, info: DataInfo) -> None:
        """Make the model for the images and classes of `info`.

        Raises:
            ConfigError: the data are not images, or an option that the mixer refuses.
        """
        super().__init__(info)
        self.config = config = config or MambaVisionConfig()
        self.patch_embed = Stem(self.in_chans, config)
        self.levels = nn.ModuleList(make_level(config, level) for level in range(LEVELS))
        self.norm = nn.BatchNorm2d(self.num_features)
        self.head = self._make_head(self.num_classes)

    @property
    def num_features(self) -> int:
        return self.config.channels(LEVELS - 1)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The four levels, each before its downsampling."""
        first, second = self.config.stem_strides
        return tuple(
            Stage(self.config.channels(level), first * second * 2**level, f"levels.{level}")
            for level in range(LEVELS)
        )

    def forward_features(self, images: Images) -> FeatureMap:
        """The normalised map of the last level, (b, d, y, x)."""
        return self.norm(self._maps(images, LEVELS)[-1])

    def forward_head(self, x: FeatureMap, pre_logits: bool = False) -> Tensor:
        x = x.mean(dim=(2, 3))
        return x if pre_logits else self.head(x)

    def feature_maps(self, images: Images, indices: Sequence[int]) -> list[FeatureMap]:
        maps = self._maps(images, max(indices, default=-1) + 1)
        return [maps[i] for i in indices]

    def get_classifier(self) -> nn.Module:
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        self.num_classes = num_classes
        self.head = self._make_head(num_classes).to(self.norm.weight)

    def _maps(self, images: Images, count: int) -> list[FeatureMap]:
        """The maps of the first `count` levels."""
        # channels last from here on: cutting windows then moves no number
        x = self.checked(images).contiguous(memory_format=torch.channels_last)
        x = self.patch_embed(x)
        maps: list[FeatureMap] = []
        for level in cast(Iterable[Level], self.levels[:count]):
            x = level(x, self.call)
            maps.append(x)
            if len(maps) < count:
                x = level.downsample(x)
        return maps

    def _make_head(self, num_classes: int) -> nn.Module:
        return make_linear(self.num_features, num_classes) if num_classes else nn.Identity()


def mixers_of(depth: int) -> int:
    """How many blocks of a windowed level, the first ones, have the mixer; the rest attention."""
    return (depth + 1) // 2


def has_attention(block: nn.Module) -> bool:
    """Whether a block of a windowed level has attention and not the mixer."""
    return isinstance(block, MixedBlock) and isinstance(block.mixer, Attention)


def make_level(config: MambaVisionConfig, level: int) -> Level:
    """Make one of the four levels."""
    d, depth = config.channels(level), config.depths[level]
    first, last = sum(config.depths[:level]), max(sum(config.depths) - 1, 1)
    drops = [config.drop_path * (first + i) / last for i in range(depth)]
    downsample = Downsample(d) if level < LEVELS - 1 else nn.Identity()
    if level < MIXED_FROM:
        blocks = [ConvBlock(d, drop, config.layer_scale_conv) for drop in drops]
        return Level(blocks, downsample)
    heads, side = config.num_heads[level - MIXED_FROM], config.windows[level - MIXED_FROM]
    mixers = mixers_of(depth)
    mixed = [
        MixedBlock(
            d,
            build_mixer(config.mixer, d, config.mixer_options)
            if i < mixers
            else Attention(d, heads, config),
            drop,
            config,
        )
        for i, drop in enumerate(drops)
    ]
    sliding = config.attention_window, config.attention_dilation
    return WindowedLevel(mixed, downsample, side, sliding)


def _preset(
    dim: int, in_dim: int, depths: tuple[int, int, int, int], drop_path: float, crop: float = 1.0
) -> Preset:
    """A published size; the larger ones have layer scale, the largest more heads."""
    config = MambaVisionConfig(
        dim=dim,
        in_dim=in_dim,
        depths=depths,
        num_heads=(16, 32) if dim == 196 else (8, 16),
        layer_scale=1e-5 if dim >= 128 else None,
        drop_path=drop_path,
    )
    return Preset(MambaVision, config, crop=crop)


PRESETS: dict[str, Preset] = {
    "mambavision_tiny": _preset(80, 32, (1, 3, 8, 4), 0.2),
    "mambavision_tiny2": _preset(80, 32, (1, 3, 11, 4), 0.2, 0.98),
    "mambavision_small": _preset(96, 64, (3, 3, 7, 5), 0.2, 0.93),
    "mambavision_base": _preset(128, 64, (3, 3, 10, 5), 0.3),
    "mambavision_large": _preset(196, 64, (3, 3, 10, 5), 0.3),
    "mambavision_large2": _preset(196, 64, (3, 3, 12, 5), 0.3),
}
