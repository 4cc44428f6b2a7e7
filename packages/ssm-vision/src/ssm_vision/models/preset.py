"""A published size of a model family, under its public name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ssm_core import DataInfo
from ssm_vision.models.image_model import ImageModel


@dataclass(frozen=True)
class Preset:
    """What `create_model(name)` builds.

    Attributes:
        build: `build(config, info)` returns the model.
        config: options of the family, as published; overrides replace single fields.
        image_size: pixels of a side of the images it was published for.
        num_classes: outputs of its head.
    """

    build: Callable[[Any, DataInfo], ImageModel]
    config: Any
    image_size: int = 224
    num_classes: int = 1000
