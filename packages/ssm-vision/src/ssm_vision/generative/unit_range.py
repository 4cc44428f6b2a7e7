"""From the normalised images of a data set to numbers from 0 to 1, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ssm_core import DataInfo
from ssm_core.errors import ConfigError
from ssm_kernels.errors import ShapeError
from ssm_vision.models.image_model import Images


@dataclass(frozen=True)
class UnitRange:
    """Undoes (v - mean) / std; what was black is 0, what was white is 1.

    Attributes:
        mean, std: one number per channel, those of the data set's normalisation.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def to_unit(self, images: Images) -> Images:
        """Normalised images (b, c, y, x) -> 0..1; what lies outside is cut off."""
        mean, std = self._columns(images)
        return (images * std + mean).clamp(0.0, 1.0)

    def from_unit(self, images: Images) -> Images:
        """Images (b, c, y, x) of 0..1 -> normalised as those of the data set."""
        mean, std = self._columns(images)
        return (images - mean) / std

    def _columns(self, like: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = like.new_tensor(self.mean), like.new_tensor(self.std)
        return mean.view(-1, 1, 1), std.view(-1, 1, 1)


def image_shape(owner: str, info: DataInfo) -> tuple[int, int, int]:
    """The checked (c, y, x) of the data.

    Raises:
        ConfigError: the data are not images.
    """
    if len(info.input_shape) != 3:
        raise ConfigError(
            f"{owner} needs images (c, y, x), this data set gives {tuple(info.input_shape)}: "
            "choose another --model or --data"
        )
    channels, height, width = info.input_shape
    return channels, height, width


def unit_range(
    owner: str, mean: Sequence[float], std: Sequence[float], channels: int
) -> UnitRange:
    """The range for `channels` channels; one number stands for all of them.

    Raises:
        ConfigError: neither one number nor one per channel, or a deviation that is not positive.
    """
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, channels):
            raise ConfigError(
                f"{owner}: {name} has {len(values)} numbers, expected 1 or {channels}, one per "
                "channel of the data set's normalisation"
            )
    if min(std) <= 0:
        raise ConfigError(f"{owner}: std is {tuple(std)}, expected numbers above 0")
    return UnitRange(tuple(mean), tuple(std))


def check_images(owner: str, images: Images, shape: Sequence[int]) -> None:
    """Raise `ShapeError` unless `images` is (b, *shape)."""
    if images.dim() != 4 or tuple(images.shape[1:]) != tuple(shape):
        raise ShapeError(
            f"{owner}: images have shape {tuple(images.shape)}, expected (b, c, y, x) = "
            f"(b, {', '.join(str(n) for n in shape)})"
        )


def check_labels(
    owner: str, labels: Tensor | None, conditional: bool, batch: int
) -> None:
    """Raise `ShapeError` unless there are labels (b,) exactly where the model wants them."""
    given = None if labels is None else tuple(labels.shape)
    expected = (batch,) if conditional else None
    if given != expected:
        raise ShapeError(
            f"{owner}: labels have shape {given}, expected {expected}: the model was built with "
            f"conditional {conditional}"
        )


def finite_positive(owner: str, name: str, value: float) -> float:
    """Return `value` if it is a number above 0."""
    if not 0 < value < torch.inf:
        raise ConfigError(f"{owner}: {name} is {value}, expected a number above 0")
    return value
