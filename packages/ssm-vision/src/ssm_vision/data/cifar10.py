"""CIFAR-10 and CIFAR-100: 50 000 + 10 000 colour photographs, 32 x 32, of ten or a hundred classes.

Read from parquet files in the layout of the Hugging Face data sets uoft-cs/cifar10 and cifar100
where they are found, otherwise from the original archive through torchvision.

Source: Krizhevsky 2009, "Learning multiple layers of features from tiny images".
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ssm_core import DataBundle, DataInfo
from ssm_core.errors import DataError
from ssm_vision.data.download import fetch
from ssm_vision.data.in_memory import InMemoryImages, Normalisation
from ssm_vision.data.subset import SubsetOptions, augmentation, bundle, require_strength

LABELS = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
INFO = DataInfo(input_shape=(3, 32, 32), n_outputs=10, labels=LABELS)
NORMALISATION = Normalisation(mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))
PARQUET_FILES = ("train.parquet", "test.parquet")


@dataclass(frozen=True)
class Cifar10Options(SubsetOptions):
    """CIFAR-10.

    Args:
        root: folder that holds cifar10/{train,test}.parquet or torchvision's cifar-10-batches-py.
        download: fetch the original archive into `root` when neither is there.
        augment: shift by up to four pixels and mirror while training.
        randaugment: mean strength of RandAugment's operations with `augment`, 0..10; null: none.
    """

    root: str = "data"
    download: bool = True
    augment: bool = True
    randaugment: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_strength(self.randaugment)


class Source(NamedTuple):
    """What tells the two sets apart."""

    name: str
    archive: str
    """name of torchvision's class"""
    label: str
    """column of the parquet files"""
    info: DataInfo
    normalise: Normalisation


CIFAR10 = Source("cifar10", "CIFAR10", "label", INFO, NORMALISATION)


def build(options: Cifar10Options) -> DataBundle:
    """Load CIFAR-10; the parquet files win over the archive.

    Raises:
        DataError: files are missing and cannot be had, or a file is damaged.
    """
    return build_cifar(CIFAR10, options)


def build_cifar(source: Source, options: Cifar10Options) -> DataBundle:
    """The same for either set."""
    folder = Path(options.root) / source.name
    if all((folder / name).is_file() for name in PARQUET_FILES):
        train, test = (read_parquet(folder / name, source.label) for name in PARQUET_FILES)
    else:
        train, test = _from_archive(source, options, folder)
    augment = augmentation(options.augment, options.randaugment, source.normalise)
    return bundle(
        InMemoryImages(*train, source.normalise, augment),
        InMemoryImages(*test, source.normalise),
        source.info,
        options,
    )


def read_parquet(path: Path, label: str = "label") -> tuple[Tensor, Tensor]:
    """Decode a parquet file into images (n, 3, 32, 32) uint8 and labels (n,) int64.

    The columns are `img`, a struct with the field `bytes` (an encoded image), and `label`.

    Raises:
        DataError: a damaged file, or one with other columns or other images.
    """
    import pyarrow
    import pyarrow.compute
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path, columns=["img", label])
        encoded = pyarrow.compute.struct_field(table["img"], "bytes").to_pylist()
        labels = torch.tensor(table[label].to_pylist(), dtype=torch.int64)
        images = np.stack([_decode(data) for data in encoded])
    except (pyarrow.ArrowException, KeyError, ValueError, TypeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{path}: damaged or not CIFAR-{10 if label == 'label' else 100} ({reason}); expected "
            f"the columns img.bytes and {label}, copy the file again"
        ) from error
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), labels


def _decode(data: bytes) -> np.ndarray:
    from PIL import Image

    pixels = np.asarray(Image.open(BytesIO(data)).convert("RGB"))
    if pixels.shape != (32, 32, 3):
        raise ValueError(f"an image of {pixels.shape[:2]} pixels, expected (32, 32)")
    return pixels


def _from_archive(
    source: Source, options: Cifar10Options, parquet_folder: Path
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    from torchvision import datasets

    archive = getattr(datasets, source.archive)
    _ensure_archive(archive, options, parquet_folder)
    parts = []
    for train in (True, False):
        # The files of the archive are pickles: torchvision reads them only after their digests
        # have been found equal to the published ones (`_ensure_archive` gives the clear message).
        data = archive(options.root, train=train)
        images = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
        parts.append((images, torch.tensor(data.targets, dtype=torch.int64)))
    return parts[0], parts[1]


def _ensure_archive(archive: Any, options: Cifar10Options, parquet_folder: Path) -> None:
    """Download the archive where it is missing; refuse a damaged one."""
    from torchvision.datasets.utils import check_integrity

    folder, name = Path(options.root) / archive.base_folder, parquet_folder.name
    if not folder.is_dir():
        problem = f"{name}: neither {parquet_folder}/train.parquet and test.parquet nor {folder}"
        remedy = f"put one of them there or pass --data.root FOLDER, the parent of {name}"
        if not options.download:
            raise DataError(f"{problem}, and data.download is false: {remedy}")
        fetch(lambda: archive(options.root, download=True), problem, remedy)
    for file, digest in archive.train_list + archive.test_list:
        if not check_integrity(str(folder / file), digest):
            raise DataError(
                f"{folder / file}: missing or damaged; remove {folder} and run again to download it"
            )
