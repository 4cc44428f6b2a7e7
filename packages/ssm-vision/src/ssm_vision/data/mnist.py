"""MNIST: 60 000 + 10 000 handwritten digits, 28 x 28.

Source: LeCun et al. 1998, "Gradient-based learning applied to document recognition".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ssm_core import DataBundle, DataInfo
from ssm_core.errors import DataError
from ssm_vision.data.download import fetch
from ssm_vision.data.in_memory import InMemoryImages, Normalisation, as_is

INFO = DataInfo(input_shape=(1, 28, 28), n_outputs=10, labels=tuple("0123456789"))
NORMALISATION = Normalisation(mean=(0.1307,), std=(0.3081,))
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


@dataclass(frozen=True)
class MnistOptions:
    """MNIST.

    Args:
        root: folder that holds MNIST/raw with the four idx files (unpacked).
        download: fetch missing files into `root`.
    """

    root: str = "data"
    download: bool = True


def build(options: MnistOptions) -> DataBundle:
    """Load MNIST from `root`/MNIST/raw, downloading it first where that is allowed.

    Raises:
        DataError: files are missing and cannot be had, or a file is damaged.
    """
    folder = Path(options.root) / "MNIST" / "raw"
    ensure_files(folder, options)
    return DataBundle(
        train=_part(folder, *FILES["train"]),
        evaluation=_part(folder, *FILES["test"]),
        info=INFO,
        collate=as_is,
    )


def ensure_files(folder: Path, options: MnistOptions) -> None:
    """Download what is missing, or raise `DataError`."""
    missing = [name for pair in FILES.values() for name in pair if not (folder / name).is_file()]
    if not missing:
        return
    problem = f"mnist: no {', '.join(missing)} in {folder}"
    remedy = f"put the unpacked files into {folder} or pass --data.root FOLDER, the parent of MNIST"
    if not options.download:
        raise DataError(f"{problem}, and data.download is false: {remedy}")
    from torchvision.datasets import MNIST

    fetch(lambda: MNIST(options.root, download=True), problem, remedy)


def _part(folder: Path, image_file: str, label_file: str) -> InMemoryImages:
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
    return InMemoryImages(images.unsqueeze(1), labels, NORMALISATION)


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
