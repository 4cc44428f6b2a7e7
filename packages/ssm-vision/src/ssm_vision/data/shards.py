"""WebDataset shards as a data set with places: tar files of KEY.jpg and KEY.cls, read at random.

The tar files are walked once, when they are opened; an example is then one read at a known place.
So shuffling, the shares of processes and resuming are those of any other data set, which a stream
of shards could only approximate. It wants storage that reads at random places quickly.

Source: the format of the `webdataset` library (tar archives, one basename per example).
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils.data import Dataset

from ssm_core.errors import DataError

IMAGES = frozenset({"jpg", "jpeg", "png", "webp", "ppm", "bmp"})


class Place(NamedTuple):
    """Where an example is."""

    shard: int
    offset: int
    size: int
    label: int


class Shards(Dataset[Any]):
    """The examples of some shards, in their order: (transformed image, label).

    Args:
        paths: uncompressed tar files.
        transform: Pillow image -> what the model reads.

    Raises:
        DataError: a damaged file, an image without a label, a label that is no number.
    """

    def __init__(self, paths: Sequence[Path], transform: Any) -> None:
        self.paths, self.transform = list(paths), transform
        self.places = [p for i, path in enumerate(self.paths) for p in index(path, i)]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        from PIL import Image

        place = self.places[number]
        path = self.paths[place.shard]
        try:
            # opened for one read: a handle kept open would be shared by forked loader processes
            with path.open("rb") as file:
                file.seek(place.offset)
                content = file.read(place.size)
            return self.transform(Image.open(BytesIO(content)).convert("RGB")), place.label
        except (OSError, ValueError, SyntaxError) as error:
            raise DataError(
                f"{path}: the image at byte {place.offset} is damaged; copy the file again"
            ) from error


def index(path: Path, shard: int) -> list[Place]:
    """Find the examples of one shard.

    Raises:
        DataError: as for `Shards`.
    """
    images: dict[str, tuple[int, int]] = {}
    labels: dict[str, int] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                key, _, kind = member.name.rpartition("/")[2].partition(".")
                key = os.path.join(os.path.dirname(member.name), key)
                if member.isfile() and kind.lower() in IMAGES:
                    images[key] = (member.offset_data, member.size)
                elif member.isfile() and kind == "cls":
                    labels[key] = _label(path, archive, member)
    except (tarfile.TarError, OSError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{path}: damaged or not an uncompressed tar file ({reason}); copy it again"
        ) from error
    without = next((key for key in images if key not in labels), None)
    if without is not None:
        raise DataError(f"{path}: {without} has an image and no {without}.cls with its label")
    return [Place(shard, *images[key], labels[key]) for key in images]


def _label(path: Path, archive: tarfile.TarFile, member: tarfile.TarInfo) -> int:
    file = archive.extractfile(member)
    text = file.read(32).decode("ascii", "replace").strip() if file is not None else ""
    if not text.isdigit():
        raise DataError(f"{path}: {member.name} holds {text!r}, expected the number of a class")
    return int(text)
