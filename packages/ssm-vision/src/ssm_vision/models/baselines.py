"""The models that tables compare with, from timm, under timm's names.

They come as timm builds them, without weights: residual networks, RegNetY of 4 billion
multiply-adds (timm's `regnety_040`), ViT at 384 pixels and DeiT. All have the methods of
`ImageModel`; the Transformers take one image size, the one they are built for.

Sources: He et al. 2016, arXiv:1512.03385 (ResNet); Xie et al. 2017, arXiv:1611.05431 (ResNeXt);
Radosavovic et al. 2020, arXiv:2003.13678 (RegNet); Dosovitskiy et al. 2021, arXiv:2010.11929 (ViT);
Touvron et al. 2021, arXiv:2012.12877 (DeiT).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from ssm_core import DataInfo
from ssm_core.errors import ConfigError, UnknownNameError
from ssm_core.layers.checks import probability
from ssm_vision.models.preset import Preset

#: architecture -> pixels of a side of the images it was published for
IMAGE_SIZES = {
    "resnet18": 224,
    "resnet50": 224,
    "resnet101": 224,
    "resnet152": 224,
    "resnext50_32x4d": 224,
    "regnety_040": 224,
    "vit_base_patch16_384": 384,
    "vit_large_patch16_384": 384,
    "deit_tiny_patch16_224": 224,
    "deit_small_patch16_224": 224,
    "deit_base_patch16_224": 224,
}
TRANSFORMERS = ("vit_", "deit_")


@dataclass(frozen=True)
class BaselineConfig:
    """A model of timm to compare with.

    Args:
        architecture: resnet18, resnet50, resnet101, resnet152, resnext50_32x4d, regnety_040,
            vit_base_patch16_384, vit_large_patch16_384, deit_tiny_patch16_224,
            deit_small_patch16_224 or deit_base_patch16_224.
        drop_path: probability of leaving out a residual branch in training, 0..1; at the last
            block, growing linearly up to it.
    """

    architecture: str = "resnet18"
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        if self.architecture not in IMAGE_SIZES:
            raise UnknownNameError.of("architecture", self.architecture, IMAGE_SIZES)
        probability("BaselineConfig", "drop_path", self.drop_path)


def build(config: BaselineConfig, info: DataInfo) -> nn.Module:
    """Build a baseline for the images and classes of `info`: (b, c, y, x) -> (b, classes).

    Raises:
        ConfigError: the data are not images, or smaller than a patch.
    """
    import timm

    if len(info.input_shape) != 3:
        raise ConfigError(
            f"{config.architecture} needs images (c, y, x), this data set gives "
            f"{tuple(info.input_shape)}: choose another --model or --data"
        )
    in_chans, height, width = info.input_shape
    size: dict[str, Any] = {}
    if config.architecture.startswith(TRANSFORMERS):
        if min(height, width) < 16:
            raise ConfigError(
                f"{config.architecture}: images have {height} x {width} pixels, expected at least "
                "16 x 16"
            )
        size = {"img_size": (height, width)}
    model: nn.Module = timm.create_model(
        config.architecture,
        num_classes=info.n_outputs,
        in_chans=in_chans,
        drop_path_rate=config.drop_path,
        **size,
    )
    return model


PRESETS = {
    name: Preset(build, BaselineConfig(name), image_size=size) for name, size in IMAGE_SIZES.items()
}
