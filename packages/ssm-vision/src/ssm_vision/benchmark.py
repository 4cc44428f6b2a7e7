"""What `ssm-train bench` times here: every model of the zoo, against image size."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssm_core import BenchmarkSpec
from ssm_vision.models.registry import BASELINES
from ssm_vision.zoo import create_model, list_models


def models() -> dict[str, bool]:
    """Every name, and whether it is one to compare with."""
    baselines = {name for names in BASELINES.values() for name in names}
    return {name: name in baselines for name in list_models()}


def build(name: str, image_size: int) -> nn.Module:
    """The model for images of that size."""
    return create_model(name, img_size=image_size)


def images(model: nn.Module, batch: int, image_size: int) -> Tensor:
    """Noise in the shape of images (b, c, y, x)."""
    info = getattr(model, "info", None)
    channels = info.input_shape[0] if info is not None else 3
    return torch.randn(batch, channels, image_size, image_size)


def loss(outputs: Tensor, inputs: Tensor) -> Tensor:
    """The mean square of what comes out; its value does not matter for time."""
    return outputs.float().square().mean()


BENCHMARK = BenchmarkSpec(
    name="image models",
    help="ssm_vision.list_models(), baselines included",
    models=models,
    build=build,
    inputs=images,
    loss=loss,
    size="image_size",
    size_label="image size in pixels",
    default_size=224,
    unit="images",
    count=lambda batch, image_size: batch,
    preload=("ssm_vision.benchmark", "timm"),
)
