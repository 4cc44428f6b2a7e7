"""Your own images: a folder per class, `root`/train/CLASS/*.png and `root`/val/CLASS/*.png."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from ssm_core import DataBundle, DataInfo
from ssm_core.errors import ConfigError, DataError

#: mean and standard deviation of ImageNet's colours, the usual choice for photographs
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ImageFolderOptions:
    """A folder of images, one sub-folder per class.

    Args:
        root: folder that holds train/CLASS/IMAGE and val/CLASS/IMAGE (or test/CLASS/IMAGE).
        size: pixels of a side; images are resized and cropped to a square.
        augment: crop at random and mirror while training.
    """

    root: str = "data"
    size: int = 64
    augment: bool = True

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ConfigError(f"data.size is {self.size}, expected 1 or more")


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
    root = Path(options.root)
    train_folder = root / "train"
    test_folder = next((root / n for n in ("val", "test") if (root / n).is_dir()), None)
    if not train_folder.is_dir() or test_folder is None:
        absent = train_folder if not train_folder.is_dir() else f"{root}/val (or {root}/test)"
        raise DataError(
            f"image-folder: no folder {absent}: expected {root}/train/CLASS/IMAGE.png and "
            f"{root}/val/CLASS/IMAGE.png; pass --data.root FOLDER"
        )
    train = Images(train_folder, _transform(options.size, options.augment))
    test = Images(test_folder, _transform(options.size, augment=False))
    if train.files.classes != test.files.classes:
        odd = sorted(set(train.files.classes) ^ set(test.files.classes))
        raise DataError(
            f"image-folder: {train_folder} and {test_folder} must have the same classes; "
            f"only one of them has {', '.join(odd[:5])}"
        )
    labels = tuple(train.files.classes)
    info = DataInfo(
        input_shape=(3, options.size, options.size), n_outputs=len(labels), labels=labels
    )
    return DataBundle(train=train, evaluation=test, info=info)


def _transform(size: int, augment: bool) -> Any:
    """Image file -> normalised tensor (3, size, size)."""
    import torch
    from torchvision.transforms import v2

    if augment:
        crop = [v2.RandomResizedCrop(size, scale=(0.5, 1.0)), v2.RandomHorizontalFlip()]
    else:
        crop = [v2.Resize(size), v2.CenterCrop(size)]
    to_tensor = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    return v2.Compose([*crop, *to_tensor])
