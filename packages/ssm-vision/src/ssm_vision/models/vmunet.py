"""VM-UNet: an encoder and a decoder of VMamba's first blocks, with skips between them, for pixels.

    image (b, c, y, x) -> patches -> stages down, each at half the resolution with more channels
    -> stages up, each adding what entered the encoder's stage of the same size
    -> every pixel again -> logits (b, classes, y, x)

As published, a skip is added before the resolution is doubled, so that the embedded patches
themselves skip nothing, and with one class the published wrapper returns sigmoid(logits): here the
logits come out in every case.

Source: Ruan et al. 2024, "VM-UNet: Vision Mamba UNet for Medical Image Segmentation",
arXiv:2402.02491; blocks: Liu et al. 2024, arXiv:2401.10166.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, TypeAlias

import torch
from torch import Tensor, nn

from ssm_core import DataInfo, build_mixer
from ssm_core.official.tensors import Tensors
from ssm_vision.images import fill_up
from ssm_vision.models.image_model import FeatureMap, ImageModel, Images, Stage
from ssm_vision.models.patch_merging import PatchMerging
from ssm_vision.models.preset import Preset
from ssm_vision.models.ss2d import SS2D, ChannelLast
from ssm_vision.models.vmunet_config import VMUNetConfig
from ssm_vision.models.vmunet_names import encoder_names, with_decoder
from ssm_vision.models.vmunet_parts import DownStage, PatchEmbed, PatchExpand, UNetBlock, UpStage
from ssm_vision.models.vss_block import RowByRow, init_linear_maps

PixelLogits: TypeAlias = Annotated[Tensor, "b classes y x"]


class VMUNet(ImageModel):
    """Images (b, c, y, x) -> logits of every pixel (b, classes, y, x).

    Any size: images are filled up at the bottom and on the right to a multiple of
    patch_size 2^(stages - 1) pixels (32) by their mirror image, and the logits cut to the image's
    size. Where the model has 3 channels, grey images (b, 1, y, x) serve as all three.

    Cost: as SS2D in every block, O(pixels / patch_size^2) in the outer stages and a quarter of the
    pixels with twice the channels in each deeper one.
    """

    hierarchical = True

    def __init__(self, config: VMUNetConfig | None, info: DataInfo) -> None:
        """Build the model for the images and classes of `info`.

        Raises:
            ConfigError: the data are not images; anything that the mixer refuses.
        """
        super().__init__(info)
        self.config = config = config or VMUNetConfig()
        dims, patch = config.dims, config.patch_size
        self.patch_embed = PatchEmbed(self.in_chans, dims[0], patch, config.patch_norm)
        rates = _rates(config.drop_path, sum(config.depths))
        self.layers = nn.ModuleList()
        for i, (dim, depth) in enumerate(zip(dims, config.depths, strict=True)):
            down = PatchMerging(dim, dims[i + 1]) if i + 1 < len(dims) else None
            self.layers.append(DownStage(make_blocks(dim, depth, rates, config), down))
        rates = iter(list(_rates(config.drop_path, sum(config.depths_decoder)))[::-1])
        self.layers_up = nn.ModuleList()
        for i, (dim, depth) in enumerate(zip(dims[::-1], config.depths_decoder, strict=True)):
            up = PatchExpand(dims[-i], dim, 2) if i else None
            self.layers_up.append(UpStage(up, make_blocks(dim, depth, rates, config)))
        self.final_up = PatchExpand(dims[0], self.num_features, patch)
        self.final_conv: nn.Module = nn.Conv2d(self.num_features, self.num_classes, 1)
        for part in self.modules():
            if isinstance(part, PatchMerging | PatchExpand):
                init_linear_maps(part)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Those of the encoder."""
        return tuple(
            Stage(dim, self.config.patch_size * 2**i, f"layers.{i}.blocks")
            for i, dim in enumerate(self.config.dims)
        )

    @property
    def num_features(self) -> int:
        """Channels of every pixel before the last convolution."""
        return self.config.dims[0] // self.config.patch_size

    def forward(self, images: Images) -> PixelLogits:
        """Classify every pixel of images (b, c, y, x): float, normalised as in training, or uint8
        (255 becomes 1). With one class sigmoid(logits) is the probability of the foreground.

        Raises:
            ShapeError: not (b, c, y, x), or another number of channels than the model has.
            DTypeError: neither floating point nor uint8.
        """
        return super().forward(images)

    def checked(self, images: Images, least: int = 1) -> Images:
        """As for every model; a grey image serves as all three channels."""
        if self.in_chans == 3 and images.dim() == 4 and images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        return super().checked(images, least)

    def forward_features(self, images: Images) -> FeatureMap:
        """Features of every pixel, (b, d, y, x) with d = `num_features`."""
        entered, maps = self._encode(images, len(self.layers))
        x = maps[-1]
        for i, level in enumerate(self.layers_up):
            assert isinstance(level, UpStage)
            if level.upsample is not None:
                x = level.upsample(x + entered[-i])
            for block in level.blocks:
                x = self.call(block, x)
        height, width = images.shape[2:]
        return self.final_up(x).permute(0, 3, 1, 2)[:, :, :height, :width]

    def forward_head(self, x: FeatureMap, pre_logits: bool = False) -> PixelLogits:
        """Classify every pixel of x (b, d, y, x), or return x; nothing is pooled."""
        return x if pre_logits else self.final_conv(x)

    def feature_maps(self, images: Images, indices: Sequence[int]) -> list[FeatureMap]:
        """Maps (b, d, y, x) of the encoder's stages, before the resolution is halved."""
        _, maps = self._encode(images, max(indices, default=-1) + 1)
        chosen = []
        for i in indices:
            rows, columns = (-(-side // self.stages[i].stride) for side in images.shape[2:])
            chosen.append(maps[i][:, :rows, :columns].permute(0, 3, 1, 2))
        return chosen

    def get_classifier(self) -> nn.Module:
        """The last convolution, 1 x 1, or an identity after `reset_classifier(0)`."""
        return self.final_conv

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new, untrained last convolution in; 0 classes leave the features of the pixels."""
        self.num_classes = num_classes
        if num_classes == 0:
            self.final_conv = nn.Identity()
        else:
            like = self.final_up.expand.weight
            self.final_conv = nn.Conv2d(
                self.num_features, num_classes, 1, device=like.device, dtype=like.dtype
            )

    def adapt(self, tensors: Tensors) -> Tensors:
        """Return what fits this model of the weights of another one, for fine-tuning.

        From a VMamba of the first release (its present or its old names) the encoder takes what has
        its names, and the decoder's blocks start as the encoder's blocks of the same width; what is
        between the stages of the decoder and after it stays as it is. From a VM-UNet (with or
        without the prefix "vmunet.") everything is taken but a last convolution of other classes.
        Colours of the first convolution are added up where this model reads grey images.

        Whatever else does not fit stays in, so that whoever loads it can say so.
        Source: section 4 of the paper (weights of VMamba-S trained on ImageNet-1k).
        """
        fitting = encoder_names(tensors)
        parts = {name.partition(".")[0] for name in fitting}
        if "layers" in parts and "layers_up" not in parts:  # no decoder: a VMamba
            own = self.state_dict()
            both = with_decoder(fitting, len(self.layers))
            fitting = {name: tensor for name, tensor in both.items() if name in own}
        stem = fitting.get("patch_embed.proj.weight")
        if stem is not None and stem.shape[1] == 3 and self.in_chans == 1:
            fitting["patch_embed.proj.weight"] = stem.sum(dim=1, keepdim=True)
        head = fitting.get("final_conv.weight")
        if head is not None and len(head) != self.num_classes:
            return {k: v for k, v in fitting.items() if not k.startswith("final_conv.")}
        return fitting

    def _encode(self, images: Images, count: int) -> tuple[list[ChannelLast], list[ChannelLast]]:
        """What entered the first `count` stages of the encoder and what their blocks made of it."""
        images = self.checked(images)
        m = self.config.multiple
        height, width = (-(-side // m) * m for side in images.shape[2:])
        x = self.patch_embed(fill_up(images, height, width))
        entered, maps = [], []
        downsample: nn.Module | None = None
        for level in self.layers[:count]:
            assert isinstance(level, DownStage)
            if downsample is not None:
                x = downsample(x)
            entered.append(x)
            for block in level.blocks:
                x = self.call(block, x)
            maps.append(x)
            downsample = level.downsample
        return entered, maps


def make_blocks(
    dim: int, depth: int, rates: Iterator[float], config: VMUNetConfig
) -> list[nn.Module]:
    """The blocks of one stage, with the next drop path rates."""
    return [UNetBlock(dim, make_mixer(dim, config), next(rates)) for _ in range(depth)]


def make_mixer(dim: int, config: VMUNetConfig) -> nn.Module:
    """SS2D, or another sequence layer over the rows, which keeps its own initial values."""
    if config.mixer is not None:
        return RowByRow(build_mixer(config.mixer, dim, config.mixer_options))
    mixer = SS2D(dim, config)
    init_linear_maps(mixer)
    return mixer


def _rates(greatest: float, count: int) -> Iterator[float]:
    """From 0 to the greatest; on the CPU also where models are built without numbers."""
    return iter(torch.linspace(0, greatest, count, device="cpu").tolist())


PRESETS: dict[str, Preset] = {
    "vmunet": Preset(VMUNet, VMUNetConfig(), image_size=256, num_classes=1),
    # as in the published trainings on ISIC and (with 9 classes) Synapse
    "vmunet_small": Preset(
        VMUNet,
        VMUNetConfig(depths=(2, 2, 2, 2), depths_decoder=(2, 2, 2, 1)),
        image_size=256,
        num_classes=1,
    ),
}
