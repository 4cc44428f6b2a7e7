"""CIFAR-10: 50 000 + 10 000 colour photographs, 32 x 32, ten classes.

Read from parquet files in the layout of the Hugging Face data set uoft-cs/cifar10 where they are
found, otherwise from the original archive through torchvision.

Source: Krizhevsky 2009, "Learning multiple layers of features from tiny images".
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ssm_core import DataBundle, DataInfo
from ssm_core.errors import DataError
from ssm_vision.data.download import fetch
from ssm_vision.data.in_memory import InMemoryImages, Normalisation, as_is, shift_and_flip

LABELS = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
INFO = DataInfo(input_shape=(3, 32, 32), n_outputs=10, labels=LABELS)
NORMALISATION = Normalisation(mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))
PARQUET_FILES = ("train.parquet", "test.parquet")


@dataclass(frozen=True)
class Cifar10Options:
    """CIFAR-10.

    Args:
        root: folder that holds cifar10/{train,test}.parquet or torchvision's cifar-10-batches-py.
        download: fetch the original archive into `root` when neither is there.
        augment: shift by up to four pixels and mirror while training.
    """

    root: str = "data"
    download: bool = True
    augment: bool = True


def build(options: Cifar10Options) -> DataBundle:
    """Load CIFAR-10; the parquet files win over the archive.

    Raises:
        DataError: files are missing and cannot be had, or a file is damaged.
    """
    folder = Path(options.root) / "cifar10"
    if all((folder / name).is_file() for name in PARQUET_FILES):
        (train, train_labels), (test, test_labels) = (
            read_parquet(folder / name) for name in PARQUET_FILES
        )
    else:
        (train, train_labels), (test, test_labels) = _from_archive(options, folder)
    augment = shift_and_flip if options.augment else None
    return DataBundle(
        train=InMemoryImages(train, train_labels, NORMALISATION, augment),
        evaluation=InMemoryImages(test, test_labels, NORMALISATION),
        info=INFO,
        collate=as_is,
    )


def read_parquet(path: Path) -> tuple[Tensor, Tensor]:
    """Decode a parquet file into images (n, 3, 32, 32) uint8 and labels (n,) int64.

    The columns are `img`, a struct with the field `bytes` (an encoded image), and `label`.
    """
    import pyarrow
    import pyarrow.compute
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path, columns=["img", "label"])
        encoded = pyarrow.compute.struct_field(table["img"], "bytes").to_pylist()
        labels = torch.tensor(table["label"].to_pylist(), dtype=torch.int64)
        images = np.stack([_decode(data) for data in encoded])
    except (pyarrow.ArrowException, KeyError, ValueError, TypeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{path}: damaged or not CIFAR-10 ({reason}); expected the columns img.bytes and "
            "label, copy the file again"
        ) from error
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), labels


def _decode(data: bytes) -> np.ndarray:
    from PIL import Image

    pixels = np.asarray(Image.open(BytesIO(data)).convert("RGB"))
    if pixels.shape != (32, 32, 3):
        raise ValueError(f"an image of {pixels.shape[:2]} pixels, expected (32, 32)")
    return pixels


def _from_archive(
    options: Cifar10Options, parquet_folder: Path
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    from torchvision.datasets import CIFAR10

    _ensure_archive(options, parquet_folder)
    parts = []
    for train in (True, False):
        # The files of the archive are pickles: torchvision reads them only after their digests
        # have been found equal to the published ones (`_ensure_archive` gives the clear message).
        data = CIFAR10(options.root, train=train)
        images = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
        parts.append((images, torch.tensor(data.targets, dtype=torch.int64)))
    return parts[0], parts[1]


def _ensure_archive(options: Cifar10Options, parquet_folder: Path) -> None:
    """Download the archive where it is missing; refuse a damaged one."""
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_integrity

    folder = Path(options.root) / CIFAR10.base_folder
    names = CIFAR10.train_list + CIFAR10.test_list
    if not folder.is_dir():
        problem = f"cifar10: neither {parquet_folder}/train.parquet and test.parquet nor {folder}"
        remedy = "put one of them there or pass --data.root FOLDER, the parent of cifar10"
        if not options.download:
            raise DataError(f"{problem}, and data.download is false: {remedy}")
        fetch(lambda: CIFAR10(options.root, download=True), problem, remedy)
    for name, digest in names:
        if not check_integrity(str(folder / name), digest):
            raise DataError(
                f"{folder / name}: missing or damaged; remove {folder} and run again to download it"
            )
