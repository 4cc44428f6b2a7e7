"""Part of a data set, the same in every run: for comparisons at a reduced budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from ssm_core import DataBundle, DataInfo
from ssm_core.errors import ConfigError
from ssm_vision.augment import STRONGEST, RandAugment
from ssm_vision.data.in_memory import InMemoryImages, Normalisation, as_is, shift_and_flip

#: of the choice; not that of a run, so that runs with different seeds see the same examples
SEED = 20_240


@dataclass(frozen=True, kw_only=True)  # so that `root` stays first where it is inherited
class SubsetOptions:
    """How much of a data set is used.

    Args:
        train_examples: train on so many examples, a fixed random choice; null: on all.
        eval_examples: evaluate on so many; null: on all.
    """

    train_examples: int | None = None
    eval_examples: int | None = None

    def __post_init__(self) -> None:
        for key in ("train_examples", "eval_examples"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ConfigError(f"data.{key} is {value}, expected null or 1 or more")


def chosen(size: int, count: int, key: str) -> Tensor:
    """The indices (count,) of a fixed random choice, increasing.

    Raises:
        ConfigError: more than there are.
    """
    if count > size:
        raise ConfigError(f"data.{key} is {count}, expected at most the {size} examples there are")
    generator = torch.Generator().manual_seed(SEED)
    return torch.randperm(size, generator=generator)[:count].sort().values


def part(data: Dataset[Any], options: SubsetOptions, key: str) -> Dataset[Any]:
    """What the option `key` leaves of a data set; null leaves all of it."""
    count = getattr(options, key)
    if count is None:
        return data
    indices = chosen(len(data), count, key)  # type: ignore[arg-type]
    if isinstance(data, InMemoryImages):
        return InMemoryImages(
            data.images[indices], data.labels[indices], data.normalise, data.augment
        )
    return Subset(data, indices.tolist())


def bundle(
    train: InMemoryImages, test: InMemoryImages, info: DataInfo, options: SubsetOptions
) -> DataBundle:
    """Both parts of a set in memory, or what the options leave of them."""
    return DataBundle(
        train=part(train, options, "train_examples"),
        evaluation=part(test, options, "eval_examples"),
        info=info,
        collate=as_is,
    )


def augmentation(
    on: bool, randaugment: float | None, normalise: Normalisation
) -> Callable[[Tensor], Tensor] | None:
    """What happens to batches of bytes (b, c, y, x) in training: shifted, mirrored, RandAugment."""
    if not on or randaugment is None:
        return shift_and_flip if on else None
    fill = tuple(round(normalise.white * mean) for mean in normalise.mean)
    return partial(_moved_and_changed, RandAugment(randaugment, fill))


def _moved_and_changed(operations: RandAugment, images: Tensor) -> Tensor:
    return operations.each(shift_and_flip(images))


def require_strength(magnitude: float | None) -> None:
    """Check the option `randaugment`.

    Raises:
        ConfigError: not a magnitude.
    """
    if magnitude is not None and not 0 <= magnitude <= STRONGEST:
        raise ConfigError(
            f"data.randaugment is {magnitude}, expected null or a number from 0 to {STRONGEST:g}"
        )
