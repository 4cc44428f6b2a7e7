"""Your own images: a folder per class, `root`/train/CLASS/*.png and `root`/val/CLASS/*.png."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from ssm_core import DataBundle, DataInfo
from ssm_core.errors import DataError
from ssm_vision.data.photographs import (
    MEAN,
    STD,
    PhotographOptions,
    eval_transform,
    train_transform,
)
from ssm_vision.data.subset import part

__all__ = ["MEAN", "STD", "ImageFolderOptions", "Images", "build", "build_folder"]


@dataclass(frozen=True)
class ImageFolderOptions(PhotographOptions):
    """A folder of images, one sub-folder per class.

    Args:
        root: folder that holds train/CLASS/IMAGE and val/CLASS/IMAGE (or test/CLASS/IMAGE).
    """

    root: str = "data"


class Images(Dataset[Any]):
    """torchvision's ImageFolder with an error that names a damaged file."""

    def __init__(self, folder: Path, transform: Any) -> None:
        from torchvision.datasets import ImageFolder

        try:
            self.files = ImageFolder(str(folder), transform=transform)
        except OSError as error:  # no class folder, a class without images, no permission
            reason = " ".join(str(error).split())
            raise DataError(
                f"{folder}: {reason} Expected {folder}/CLASS/IMAGE.png with images in every class"
            ) from error

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Image (3, size, size) float32 and the number of its class."""
        try:
            return self.files[index]
        except (OSError, ValueError, SyntaxError) as error:  # what Pillow raises for bad files
            raise DataError(
                f"{self.files.samples[index][0]}: damaged or not an image; remove or replace it"
            ) from error


def build(options: ImageFolderOptions) -> DataBundle:
    """Find both parts and check that they have the same classes.

    Raises:
        DataError: a folder is missing or empty, or the classes differ.
    """
    return build_folder("image-folder", Path(options.root), options)


def build_folder(name: str, root: Path, options: PhotographOptions) -> DataBundle:
    """The same under the data set's own name, for errors."""
    train_folder = root / "train"
    test_folder = next((root / n for n in ("val", "test") if (root / n).is_dir()), None)
    if not train_folder.is_dir() or test_folder is None:
        absent = train_folder if not train_folder.is_dir() else f"{root}/val (or {root}/test)"
        raise DataError(
            f"{name}: no folder {absent}: expected {root}/train/CLASS/IMAGE.png and "
            f"{root}/val/CLASS/IMAGE.png; pass --data.root FOLDER"
        )
    train = Images(train_folder, train_transform(options))
    test = Images(test_folder, eval_transform(options))
    if train.files.classes != test.files.classes:
        odd = sorted(set(train.files.classes) ^ set(test.files.classes))
        raise DataError(
            f"{name}: {train_folder} and {test_folder} must have the same classes; "
            f"only one of them has {', '.join(odd[:5])}"
        )
    labels = tuple(train.files.classes)
    return DataBundle(
        train=part(train, options, "train_examples"),
        evaluation=part(test, options, "eval_examples"),
        info=DataInfo((3, options.size, options.size), len(labels), labels),
    )
