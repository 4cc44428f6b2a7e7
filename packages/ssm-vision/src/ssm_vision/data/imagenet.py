"""ImageNet-1k, or any set in one of its two layouts: folders of classes, or WebDataset shards.

Source: Russakovsky et al. 2015, arXiv:1409.0575.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ssm_core import DataBundle, DataInfo
from ssm_core.errors import ConfigError, DataError
from ssm_vision.data.image_folder import build_folder
from ssm_vision.data.photographs import (
    Interpolation,
    PhotographOptions,
    eval_transform,
    train_transform,
)
from ssm_vision.data.shards import Shards
from ssm_vision.data.subset import part


@dataclass(frozen=True)
class ImageNetOptions(PhotographOptions):
    """ImageNet-1k in the layout of the archives, or as WebDataset shards.

    Args:
        root: folder that holds train/CLASS/*.JPEG and val/CLASS/*.JPEG, or shards of KEY.jpg and
            KEY.cls: train/*.tar and val/*.tar, or *train*.tar and *val*.tar.
        classes: number of classes in shards, which cannot be seen from them in general; folders are
            counted.
    """

    root: str = "data/imagenet"
    classes: int = 1000
    size: int = 224
    scale: tuple[float, float] = (0.08, 1.0)
    interpolation: Interpolation = "bicubic"
    eval_crop: float = 0.875

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.classes < 1:
            raise ConfigError(f"data.classes is {self.classes}, expected 1 or more")


def build(options: ImageNetOptions) -> DataBundle:
    """Find the shards, or else the folders.

    Raises:
        DataError: neither is there, they are damaged, or a label is too large.
    """
    root = Path(options.root)
    shards = {name: _shards(root, name) for name in ("train", "val")}
    if not any(shards.values()):
        return build_folder("imagenet", root, options)
    for name, paths in shards.items():
        if not paths:
            raise DataError(
                f"imagenet: no shards {root}/{name}/*.tar or {root}/*{name}*.tar beside those of "
                "the other part; copy them there or pass --data.root FOLDER"
            )
    train = Shards(shards["train"], train_transform(options))
    test = Shards(shards["val"], eval_transform(options))
    for data in (train, test):
        largest = max((place.label for place in data.places), default=-1)
        if largest >= options.classes:
            raise DataError(
                f"{data.paths[0].parent}: a label is {largest}, expected less than data.classes = "
                f"{options.classes}"
            )
    return DataBundle(
        train=part(train, options, "train_examples"),
        evaluation=part(test, options, "eval_examples"),
        info=DataInfo((3, options.size, options.size), options.classes),
    )


def _shards(root: Path, name: str) -> list[Path]:
    """The tar files of one part, in order."""
    return sorted(root.glob(f"{name}/*.tar")) or sorted(root.glob(f"*{name}*.tar"))
