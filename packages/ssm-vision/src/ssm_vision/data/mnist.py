"""MNIST: 60 000 + 10 000 handwritten digits, 28 x 28; Fashion-MNIST: as many pictures of clothes.

Sources: LeCun et al. 1998, "Gradient-based learning applied to document recognition"; Xiao et al.
2017, arXiv:1708.07747.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ssm_core import DataBundle, DataInfo
from ssm_core.errors import DataError
from ssm_vision.data.download import fetch
from ssm_vision.data.in_memory import InMemoryImages, Normalisation
from ssm_vision.data.subset import SubsetOptions, augmentation, bundle, require_strength

INFO = DataInfo(input_shape=(1, 28, 28), n_outputs=10, labels=tuple("0123456789"))
NORMALISATION = Normalisation(mean=(0.1307,), std=(0.3081,))
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


FASHION_LABELS = (
    "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag",
    "ankle boot",
)  # fmt: skip
FASHION_INFO = DataInfo(input_shape=(1, 28, 28), n_outputs=10, labels=FASHION_LABELS)
FASHION_NORMALISATION = Normalisation(mean=(0.2860,), std=(0.3530,))


@dataclass(frozen=True)
class MnistOptions(SubsetOptions):
    """MNIST.

    Args:
        root: folder that holds MNIST/raw with the four idx files (unpacked).
        download: fetch missing files into `root`.
    """

    root: str = "data"
    download: bool = True


@dataclass(frozen=True)
class FashionMnistOptions(SubsetOptions):
    """Fashion-MNIST.

    Args:
        root: folder that holds FashionMNIST/raw with the four idx files (unpacked).
        download: fetch missing files into `root`.
        augment: shift by up to four pixels and mirror while training.
        randaugment: mean strength of RandAugment's operations with `augment`, 0..10; null: none.
    """

    root: str = "data"
    download: bool = True
    augment: bool = False
    randaugment: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_strength(self.randaugment)


def build(options: MnistOptions) -> DataBundle:
    """Load MNIST from `root`/MNIST/raw, downloading it first where that is allowed.

    Raises:
        DataError: files are missing and cannot be had, or a file is damaged.
    """
    folder = ensure_files("MNIST", options)
    train, test = (_part(folder, *FILES[name]) for name in ("train", "test"))
    return bundle(
        InMemoryImages(*train, NORMALISATION), InMemoryImages(*test, NORMALISATION), INFO, options
    )


def build_fashion(options: FashionMnistOptions) -> DataBundle:
    """Load Fashion-MNIST from `root`/FashionMNIST/raw, as `build` does.

    Raises:
        DataError: files are missing and cannot be had, or a file is damaged.
    """
    folder = ensure_files("FashionMNIST", options)
    train, test = (_part(folder, *FILES[name]) for name in ("train", "test"))
    augment = augmentation(options.augment, options.randaugment, FASHION_NORMALISATION)
    return bundle(
        InMemoryImages(*train, FASHION_NORMALISATION, augment),
        InMemoryImages(*test, FASHION_NORMALISATION),
        FASHION_INFO,
        options,
    )


def ensure_files(name: str, options: MnistOptions | FashionMnistOptions) -> Path:
    """The folder of the idx files of torchvision's data set `name`, downloaded if need be.

    Raises:
        DataError: files are missing and cannot be had.
    """
    folder = Path(options.root) / name / "raw"
    missing = [file for pair in FILES.values() for file in pair if not (folder / file).is_file()]
    if not missing:
        return folder
    shown = {"MNIST": "mnist", "FashionMNIST": "fashion-mnist"}[name]
    problem = f"{shown}: no {', '.join(missing)} in {folder}"
    remedy = (
        f"put the unpacked files into {folder} or pass --data.root FOLDER, the parent of {name}"
    )
    if not options.download:
        raise DataError(f"{problem}, and data.download is false: {remedy}")
    from torchvision import datasets

    fetch(lambda: getattr(datasets, name)(options.root, download=True), problem, remedy)
    return folder


def _part(folder: Path, image_file: str, label_file: str) -> tuple[torch.Tensor, torch.Tensor]:
    from torchvision.datasets import mnist as idx

    images = _read(folder / image_file, idx.read_image_file)
    labels = _read(folder / label_file, idx.read_label_file)
    if images.shape[1:] != (28, 28):
        raise DataError(
            f"{folder / image_file}: holds images of {tuple(images.shape[1:])}, expected (28, 28)"
        )
    if len(images) != len(labels) or not 0 <= int(labels.min()) <= int(labels.max()) <= 9:
        raise DataError(
            f"{folder / label_file}: damaged, expected {len(images)} labels from 0 to 9; "
            "remove it and run again to download it"
        )
    return images.unsqueeze(1), labels


def _read(path: Path, reader: Callable[[str], torch.Tensor]) -> torch.Tensor:
    try:
        return reader(str(path))
    # torchvision checks idx files with assertions, lookups and views
    except (AssertionError, KeyError, IndexError, ValueError, TypeError, RuntimeError) as error:
        raise DataError(
            f"{path}: damaged or not an idx file; remove it and run again to download it"
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
