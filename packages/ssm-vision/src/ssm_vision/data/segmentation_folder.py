"""Your own pictures with masks: FOLDER/image/NAME.png and FOLDER/label/NAME.png.

Made for a few dozen to a few thousand pictures: all of them stay in memory, as bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from ssm_core import DataBundle, DataInfo
from ssm_core.errors import ConfigError, DataError
from ssm_vision.data.in_memory import Batch, as_is
from ssm_vision.data.mask_files import UNKNOWN, Mask, Picture, find_pairs, read_pair, to_classes
from ssm_vision.images import fill_up


@dataclass(frozen=True)
class SegmentationFolderOptions:
    """Pictures and masks of any size, split by file into a training and a held-out part.

    Each picture is normalised by the mean and the standard deviation of its own pixels, so that a
    new picture needs nothing from the training.

    Args:
        root: folder that holds image/ (or images/) and label/ (or labels/, mask/, masks/).
        subfolder: look in this folder of `root` first.
        mask_suffix: end of the names of masks, before the dot: "_segmentation" for ISIC.
        classes: 1 for binary masks (0 and 1, or black and white), else the number of classes; masks
            then hold 0 .. classes - 1, and 255 where the class is unknown.
        invert: exchange foreground and background of binary masks.
        labels: a name per class (binary: of the foreground); may be empty.
        channels: 1 (grey) or 3 (colour); null: 1 if the first picture is grey.
        size: pixels of a side of the training examples.
        fit: crop: train on random squares and evaluate whole pictures; resize: all become squares.
        crops: training examples per picture and epoch.
        augment: mirror and turn training examples by multiples of 90 degrees.
        held_out: share of the files kept for evaluation.
        split: random: a fixed choice of files; last: the last files by name (neighbours in a stack
            of slices look alike, and would give the answers away).
    """

    root: str = "data"
    subfolder: str = ""
    mask_suffix: str = ""
    classes: int = 1
    invert: bool = False
    labels: tuple[str, ...] = ()
    channels: int | None = None
    size: int = 256
    fit: Literal["crop", "resize"] = "crop"
    crops: int = 1
    augment: bool = True
    held_out: float = 0.2
    split: Literal["random", "last"] = "random"

    def __post_init__(self) -> None:
        for name in ("classes", "size", "crops"):
            if getattr(self, name) < 1:
                raise ConfigError(f"data.{name} is {getattr(self, name)}, expected 1 or more")
        if self.classes > UNKNOWN:
            raise ConfigError(f"data.classes is {self.classes}, expected at most {UNKNOWN}")
        if self.invert and self.classes > 1:
            raise ConfigError(f"data.invert is for binary masks, data.classes is {self.classes}")
        if self.channels not in (None, 1, 3):
            raise ConfigError(f"data.channels is {self.channels}, expected 1, 3 or null")
        if self.labels and len(self.labels) != self.classes:
            raise ConfigError(
                f"data.labels has {len(self.labels)} names, expected one per class, {self.classes}"
            )
        if not 0 < self.held_out < 1:
            raise ConfigError(
                f"data.held_out is {self.held_out}, expected a number between 0 and 1"
            )
        for name, words in (("fit", ("crop", "resize")), ("split", ("random", "last"))):
            if getattr(self, name) not in words:
                raise ConfigError(
                    f"data.{name} is {getattr(self, name)!r}, expected {' or '.join(words)}"
                )


class Segmented(Dataset[Batch]):
    """Pictures with masks, handed out as whole batches.

    Args:
        pictures: (c, y, x) uint8, of any sizes.
        masks: (y, x) uint8 numbers of classes; `UNKNOWN` becomes -1.
        size: of random squares; None: whole pictures.
        augment: mirror and turn at random, drawing from torch's generator.
        repeats: how often each picture counts.
    """

    def __init__(
        self,
        pictures: Sequence[Picture],
        masks: Sequence[Mask],
        size: int | None = None,
        augment: bool = False,
        repeats: int = 1,
    ) -> None:
        self.pictures, self.masks = pictures, masks
        self.size, self.augment, self.repeats = size, augment, repeats
        self.scales = [_mean_and_std(picture) for picture in pictures]

    def __len__(self) -> int:
        return len(self.pictures) * self.repeats

    def __getitem__(self, index: int) -> Batch:
        """One example: image (c, y, x) float32 and classes (y, x) int64."""
        number = index % len(self.pictures)
        picture, mask = self.pictures[number], self.masks[number]
        if self.size is not None:
            picture, mask = _random_square(picture, mask, self.size)
        if self.augment:
            picture, mask = _mirror_and_turn(picture, mask)
        mean, std = self.scales[number]
        classes = mask.long()
        return (picture.float() - mean) / std, classes.masked_fill_(classes == UNKNOWN, -1)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """The batch (images (b, c, y, x), classes (b, y, x)).

        Smaller pictures are filled up at the bottom and on the right by their mirror image, whose
        pixels have the class -1: not counted.
        """
        pairs = [self[index] for index in indices]
        height, width = (max(mask.shape[axis] for _, mask in pairs) for axis in (0, 1))
        filled = [_fill_up(image, mask, height, width, -1) for image, mask in pairs]
        images, masks = zip(*filled, strict=True)
        return torch.stack(images), torch.stack(masks)


def build(options: SegmentationFolderOptions) -> DataBundle:
    """Find, read, check and split the pictures.

    Raises:
        DataError: a folder, a mask or a picture is missing, unreadable or of another size.
    """
    root = Path(options.root)
    folders = [root / options.subfolder, root] if options.subfolder else [root]
    pairs = find_pairs(folders, options.mask_suffix)
    if len(pairs) < 2:
        raise DataError(
            f"segmentation-folder: one picture, {pairs[0][0]}, cannot be split: expected 2 or more"
        )
    channels = options.channels
    pictures, masks = [], []
    for image, mask in pairs:
        picture, classes = read_pair(image, mask, channels)
        channels = len(picture)
        if options.fit == "resize":
            picture, classes = _resize(picture, classes, options.size)
        pictures.append(picture)
        masks.append(classes)
    to_classes(masks, [path for _, path in pairs], options.classes, options.invert)
    train, held_out = split(len(pairs), options.held_out, options.split)
    size = options.size if options.fit == "crop" else None
    info = DataInfo((len(pictures[0]), options.size, options.size), options.classes, options.labels)
    return DataBundle(
        train=Segmented(
            [pictures[i] for i in train],
            [masks[i] for i in train],
            size,
            options.augment,
            options.crops,
        ),
        evaluation=Segmented([pictures[i] for i in held_out], [masks[i] for i in held_out]),
        info=info,
        collate=as_is,
    )


def split(count: int, held_out: float, how: str) -> tuple[list[int], list[int]]:
    """Numbers of the files for training and of those held out, at least one each."""
    n_out = min(max(round(held_out * count), 1), count - 1)
    order = list(range(count))
    if how == "random":
        order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).tolist()
    return sorted(order[:-n_out]), sorted(order[-n_out:])


def _mean_and_std(picture: Picture) -> tuple[Tensor, Tensor]:
    """Of all pixels and channels together: the colours keep their balance."""
    pixels = picture.float()
    return pixels.mean(), pixels.std(correction=0).clamp(min=1.0)


def _resize(picture: Picture, mask: Mask, size: int) -> tuple[Picture, Mask]:
    """Squares of `size` pixels; every pixel of the mask keeps a class that it had."""
    whole = picture[None].float()
    small = F.interpolate(whole, (size, size), mode="bilinear", antialias=True)
    classes = F.interpolate(mask[None, None].float(), (size, size), mode="nearest-exact")
    return small[0].round().clamp(0, 255).to(torch.uint8), classes[0, 0].to(torch.uint8)


def _random_square(picture: Picture, mask: Mask, size: int) -> tuple[Picture, Mask]:
    """The same square of both."""
    height, width = (max(size, length) for length in mask.shape)
    picture, mask = _fill_up(picture, mask, height, width, UNKNOWN)
    y = int(torch.randint(height - size + 1, ()))
    x = int(torch.randint(width - size + 1, ()))
    return picture[:, y : y + size, x : x + size], mask[y : y + size, x : x + size]


def _mirror_and_turn(picture: Picture, mask: Mask) -> tuple[Picture, Mask]:
    """One of the 8 symmetries of a square (4 of them for an oblong), the same for both."""
    turns = int(torch.randint(4, ()))
    if mask.shape[0] != mask.shape[1]:
        turns -= turns % 2  # a batch needs equal shapes
    if bool(torch.rand(()) < 0.5):
        picture, mask = picture.flip(2), mask.flip(1)
    return picture.rot90(turns, (1, 2)), mask.rot90(turns, (0, 1))


def _fill_up(
    picture: Tensor, mask: Tensor, height: int, width: int, unknown: int
) -> tuple[Tensor, Tensor]:
    """Both with `height` x `width` pixels, more at the bottom and on the right."""
    y, x = mask.shape
    if (y, x) == (height, width):
        return picture, mask
    filled = F.pad(mask, (0, width - x, 0, height - y), value=unknown)
    return fill_up(picture, height, width), filled
