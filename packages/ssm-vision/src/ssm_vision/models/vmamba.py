"""VMamba: stages of blocks that scan a map along its rows and columns, each at half the resolution.

Source: Liu et al. 2024, "VMamba: Visual State Space Model", arXiv:2401.10166: the first release
("vanilla") and the later ones without a gate (s1l*, s2l*). Maps are channel-last inside, whatever
the published code does: parameter names, shapes and results do not depend on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import nn
from torch.nn import functional as F

from ssm_core import DataInfo, build_mixer
from ssm_core.init import exempt_from_weight_decay
from ssm_core.norm import LayerNorm
from ssm_vision.models.image_model import FeatureMap, ImageModel, Images, Logits, Stage
from ssm_vision.models.patch_merging import PatchMerging
from ssm_vision.models.preset import Preset
from ssm_vision.models.ss2d import SS2D, ChannelLast
from ssm_vision.models.vmamba_config import VMambaConfig, ungated, vanilla
from ssm_vision.models.vss_block import LINEAR_STD, RowByRow, VSSBlock, init_linear_maps


class ChannelsLast(nn.Module):
    """(b, d, y, x) -> (b, y, x, d), a view."""

    def forward(self, x: FeatureMap) -> ChannelLast:
        return x.permute(0, 2, 3, 1)


class ChannelsFirst(nn.Module):
    """(b, y, x, d) -> (b, d, y, x), a view."""

    def forward(self, x: ChannelLast) -> FeatureMap:
        return x.permute(0, 3, 1, 2)


class Level(nn.Module):
    """The blocks of one stage, and what halves the resolution for the next one."""

    def __init__(self, blocks: list[VSSBlock], downsample: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample


class Classifier(nn.Module):
    """The last norm and the linear map; the pooling between them has no parameters."""

    def __init__(self, d_model: int, num_classes: int) -> None:
        super().__init__()
        self.norm = LayerNorm(d_model)
        self.head: nn.Module = nn.Linear(d_model, num_classes)


class VMamba(ImageModel):
    """Images (b, c, y, x) of any size -> logits (b, classes).

    Cost: as SS2D in every block, O(pixels / 16) in the first stage and a quarter of the pixels with
    twice the channels in each further one.
    """

    hierarchical = True

    def __init__(self, config: VMambaConfig | None, info: DataInfo) -> None:
        """Build the model for the images and classes of `info`.

        Raises:
            ConfigError: the data are not images; anything that the mixer refuses.
        """
        super().__init__(info)
        self.config = config = config or VMambaConfig()
        dims = config.dims
        self.patch_embed = make_stem(self.in_chans, config)
        self.pos_embed: nn.Parameter | None = None
        if config.positions:
            rows, columns = (max(1, side // config.patch_size) for side in self.image_size)
            table = torch.empty(1, dims[0], rows, columns).normal_(std=LINEAR_STD)
            self.pos_embed = exempt_from_weight_decay(nn.Parameter(table))
        rates = iter(torch.linspace(0, config.drop_path, sum(config.depths), device="cpu").tolist())
        self.layers = nn.ModuleList()
        for i, (depth, dim) in enumerate(zip(config.depths, dims, strict=True)):
            blocks = [make_block(dim, config, next(rates)) for _ in range(depth)]
            last = i + 1 == len(dims)
            down = nn.Identity() if last else make_downsample(dim, dims[i + 1], config)
            self.layers.append(Level(blocks, down))
        self.classifier = Classifier(dims[-1], self.num_classes)
        init_linear_maps(self)

    @property
    def stages(self) -> tuple[Stage, ...]:
        return tuple(
            Stage(dim, self.config.patch_size * 2**i, f"layers.{i}.blocks")
            for i, dim in enumerate(self.config.dims)
        )

    @property
    def num_features(self) -> int:
        return self.config.dims[-1]

    def forward_features(self, images: Images) -> FeatureMap:
        """The normed map (b, d, y, x) of the last stage."""
        x = self._run(images, [len(self.layers) - 1])[0]
        return self.classifier.norm(x).permute(0, 3, 1, 2)

    def forward_head(self, x: FeatureMap, pre_logits: bool = False) -> Logits:
        """Classify the mean over the pixels of x (b, d, y, x)."""
        pooled = x.mean(dim=(2, 3))
        return pooled if pre_logits else self.classifier.head(pooled)

    def feature_maps(self, images: Images, indices: Sequence[int]) -> list[FeatureMap]:
        """Maps (b, d, y, x) of the stages `indices`, before the resolution is halved."""
        return [x.permute(0, 3, 1, 2) for x in self._run(images, indices)]

    def get_classifier(self) -> nn.Module:
        return self.classifier.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        self.num_classes = num_classes
        if num_classes == 0:
            self.classifier.head = nn.Identity()
        else:
            like = next(self.classifier.parameters())
            head = nn.Linear(self.num_features, num_classes, device=like.device, dtype=like.dtype)
            init_linear_maps(head)
            self.classifier.head = head

    def _run(self, images: Images, indices: Sequence[int]) -> list[ChannelLast]:
        """Maps (b, y, x, d) of the stages `indices`, computed as far as they need."""
        x = self.patch_embed(self.checked(images, self.config.least_pixels))
        if self.pos_embed is not None:
            x = x + fitted(self.pos_embed, (x.shape[1], x.shape[2])).permute(0, 2, 3, 1)
        maps: list[ChannelLast] = []
        wanted = max(indices, default=-1) + 1
        for i in range(wanted):
            level = cast(Level, self.layers[i])
            for block in level.blocks:
                x = self.call(block, x)
            maps.append(x)
            if i + 1 < wanted:
                x = level.downsample(x)
        return [maps[i] for i in indices]


def fitted(table: FeatureMap, size: tuple[int, int]) -> FeatureMap:
    """A table of embeddings (1, d, y, x) for a map of another size."""
    if table.shape[2:] == size:
        return table
    return F.interpolate(table, size, mode="bicubic", align_corners=False)


def make_stem(in_chans: int, config: VMambaConfig) -> nn.Sequential:
    """(b, c, y, x) -> (b, rows, columns, d). Parts without parameters count in the names."""
    dim, p = config.dims[0], config.patch_size
    if config.stem == "patches":
        patches = nn.Conv2d(in_chans, dim, p, stride=p)
        return nn.Sequential(patches, ChannelsLast(), LayerNorm(dim))
    return nn.Sequential(
        nn.Conv2d(in_chans, dim // 2, 3, stride=2, padding=1),
        ChannelsLast(),
        LayerNorm(dim // 2),
        ChannelsFirst(),
        nn.GELU(),
        nn.Conv2d(dim // 2, dim, 3, stride=2, padding=1),
        ChannelsLast(),
        LayerNorm(dim),
    )


def make_downsample(dim: int, d_out: int, config: VMambaConfig) -> nn.Module:
    """(b, y, x, d) -> (b, y / 2, x / 2, d_out), rounded up, for conv2x2 down."""
    if config.downsample == "merging":
        return PatchMerging(dim, d_out)
    padded = config.downsample == "conv3x3"
    conv = nn.Conv2d(dim, d_out, 3 if padded else 2, stride=2, padding=1 if padded else 0)
    return nn.Sequential(ChannelsFirst(), conv, ChannelsLast(), LayerNorm(d_out))


def make_block(dim: int, config: VMambaConfig, drop_path: float) -> VSSBlock:
    """SS2D or another mixer inside the block of VMamba."""
    op: nn.Module
    if config.mixer is None:
        op = SS2D(dim, config)
    else:
        op = RowByRow(build_mixer(config.mixer, dim, config.mixer_options))
    return VSSBlock(dim, op, int(dim * config.mlp_ratio), drop_path)


PRESETS: dict[str, Preset] = {
    "vanilla_vmamba_tiny": Preset(VMamba, vanilla(9, 96, 0.2)),
    "vanilla_vmamba_small": Preset(VMamba, vanilla(27, 96, 0.3)),
    "vanilla_vmamba_base": Preset(VMamba, vanilla(27, 128, 0.6)),
    "vmamba_tiny_s1l8": Preset(VMamba, ungated(1.0, 8, 96, 0.2)),
    "vmamba_small_s1l20": Preset(VMamba, ungated(1.0, 20, 96, 0.3)),
    "vmamba_base_s1l20": Preset(VMamba, ungated(1.0, 20, 128, 0.5)),
    "vmamba_tiny_s2l5": Preset(VMamba, ungated(2.0, 5, 96, 0.2)),
    "vmamba_small_s2l15": Preset(VMamba, ungated(2.0, 15, 96, 0.3)),
    "vmamba_base_s2l15": Preset(VMamba, ungated(2.0, 15, 128, 0.6)),
}
