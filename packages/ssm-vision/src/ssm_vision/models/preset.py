"""A published size of a model family, under its public name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from ssm_core import DataInfo


@dataclass(frozen=True)
class Preset:
    """What `create_model(name)` builds.

    Attributes:
        build: `build(config, info)` returns the model.
        config: options of the family, as published; overrides replace single fields.
        image_size: pixels of a side of the images it was published for.
        num_classes: outputs of its head.
        in_chans: channels of its images.
        crop: part of the shorter side of an image that the published evaluation cuts out.
    """

    build: Callable[[Any, DataInfo], nn.Module]
    config: Any
    image_size: int = 224
    num_classes: int = 1000
    in_chans: int = 3
    crop: float = 0.875
