"""Pairs of picture and mask: which files belong together, and what is in them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ssm_core.errors import DataError

Picture: TypeAlias = Annotated[Tensor, "c y x"]
"""uint8, grey (1, y, x) or colour (3, y, x)."""
Mask: TypeAlias = Annotated[Tensor, "y x"]
"""uint8 as stored, later int64 with numbers of classes."""

IMAGES, MASKS = ("image", "images"), ("label", "labels", "mask", "masks")
ENDINGS = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp"}
#: what a pixel of a mask with several classes has where nobody knows the class (Pascal VOC)
UNKNOWN = 255
GREY = ("1", "L", "LA")


def find_pairs(folders: Sequence[Path], mask_suffix: str) -> list[tuple[Path, Path]]:
    """The files of the first folder that has pictures and masks, in natural order (2 before 10).

    Raises:
        DataError: no such folder, no pictures, or a picture without a mask.
    """
    for root in folders:
        images, masks = (_first_folder(root, names) for names in (IMAGES, MASKS))
        if images is not None and masks is not None:
            break
    else:
        places = " or ".join(str(root) for root in folders)
        raise DataError(
            f"segmentation-folder: no folders image and label (or images and masks) in {places}: "
            "expected FOLDER/image/NAME.png and FOLDER/label/NAME.png; pass --data.root FOLDER"
        )
    by_stem = {path.stem: path for path in _files(masks)}
    pictures = _files(images)
    if not pictures:
        raise DataError(f"segmentation-folder: no pictures in {images}")
    for path in pictures:
        if path.stem + mask_suffix not in by_stem:
            raise DataError(
                f"{path}: no mask {masks}/{path.stem}{mask_suffix}.*: remove the picture, add its "
                "mask or pass --data.mask_suffix"
            )
    return [(path, by_stem[path.stem + mask_suffix]) for path in pictures]


def read_pair(image: Path, mask: Path, channels: int | None) -> tuple[Picture, Mask]:
    """Read a picture and its mask.

    Args:
        channels: 1 or 3 to convert the picture; None: 1 for grey files, else 3.
    Raises:
        DataError: unreadable, more than 8 bits per channel, a mask in colours, or other sizes.
    """
    opened = _open(image)
    if channels is None:
        channels = 1 if opened.mode in GREY else 3
    pixels = np.array(opened.convert("L" if channels == 1 else "RGB"))
    picture = torch.from_numpy(pixels).view(*pixels.shape[:2], channels).movedim(2, 0)
    opened = _open(mask)
    if opened.mode not in (*GREY, "P"):  # the indices of a palette are classes
        raise DataError(f"{mask}: a mask in {opened.mode} colours, expected one number per pixel")
    values = np.array(opened if opened.mode in ("L", "P") else opened.convert("L"))
    if values.shape != pixels.shape[:2]:
        raise DataError(
            f"{mask}: {values.shape[0]} x {values.shape[1]} pixels, but its picture {image} has "
            f"{pixels.shape[0]} x {pixels.shape[1]}"
        )
    return picture.contiguous(), torch.from_numpy(values)


def to_classes(masks: Sequence[Mask], paths: Sequence[Path], classes: int, invert: bool) -> None:
    """Check the values of masks and turn them, in place, into numbers of classes.

    With one class a mask is binary: 0 and 1, or black and white (128 and more is the foreground,
    which `invert` exchanges with the rest). With more, it holds the numbers 0 .. classes - 1, and
    255 where the class is unknown.

    Raises:
        DataError: other values; names the file.
    """
    if classes > 1:
        for mask, path in zip(masks, paths, strict=True):
            known = mask[mask != UNKNOWN]
            if known.numel() and int(known.max()) >= classes:
                raise DataError(
                    f"{path}: class {int(known.max())}, expected numbers from 0 to {classes - 1} "
                    "(255: unknown); pass --data.classes"
                )
        return
    top = max(int(mask.max()) for mask in masks)
    if 1 < top < 128:
        path = next(p for mask, p in zip(masks, paths, strict=True) if int(mask.max()) > 1)
        raise DataError(
            f"{path}: values up to {top}, expected 0 and 1 or black and white for a binary mask; "
            f"pass --data.classes {top + 1} if these are classes"
        )
    for mask in masks:
        foreground = mask > 127 if top > 1 else mask > 0
        mask.copy_(~foreground if invert else foreground)


def _open(path: Path) -> Any:
    """The decoded file, of at most 8 bits per channel."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as opened:
            opened.load()
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{path}: damaged or not an image; remove or replace it") from error
    if opened.mode.startswith(("I", "F")):
        raise DataError(
            f"{path}: {opened.mode} pixels of more than 8 bits: convert it to 8 bits per channel"
        )
    return opened


def _first_folder(root: Path, names: Sequence[str]) -> Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)


def _files(folder: Path) -> list[Path]:
    found = [path for path in folder.iterdir() if path.suffix.lower() in ENDINGS]
    return sorted(found, key=lambda path: _natural(path.stem))


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts 2 before 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
