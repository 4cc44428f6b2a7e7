"""Any image data set of the Hugging Face Hub, or one on disk, through the library `datasets`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from ssm_core import DataBundle, DataInfo
from ssm_core.errors import ConfigError, DataError
from ssm_vision.data.photographs import PhotographOptions, eval_transform, train_transform
from ssm_vision.data.subset import part


@dataclass(frozen=True)
class HuggingFaceOptions(PhotographOptions):
    """An image data set of the Hugging Face Hub; needs `pip install ssm-vision[huggingface]`.

    Args:
        path: name on the Hub (uoft-cs/cifar100), or a folder: one written by `save_to_disk`, or one
            of files that `datasets.load_dataset` reads.
        subset: name of a configuration of the data set, if it has several.
        train_split: split to train on.
        eval_split: split to evaluate on.
        image: column of the images.
        label: column of the labels, numbers or class labels.
    """

    path: str = ""
    subset: str | None = None
    train_split: str = "train"
    eval_split: str = "test"
    image: str = "image"
    label: str = "label"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.path:
            raise ConfigError("data.path is empty: pass --data.path NAME or FOLDER of the data set")


class Rows(Dataset[Any]):
    """Rows of a table of images: (transformed image, label)."""

    def __init__(self, rows: Any, options: HuggingFaceOptions, transform: Any) -> None:
        self.rows, self.options, self.transform = rows, options, transform

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        try:
            row = self.rows[index]
            image = row[self.options.image].convert("RGB")
        except (OSError, ValueError, SyntaxError, AttributeError) as error:
            raise DataError(
                f"{self.options.path}: row {index} has no readable image in the column "
                f"{self.options.image!r}; choose the column with --data.image"
            ) from error
        return self.transform(image), int(row[self.options.label])


def build(options: HuggingFaceOptions) -> DataBundle:
    """Load both splits.

    Raises:
        DataError: the library is absent, or the data set, a split or a column cannot be had.
    """
    splits = _load(options)
    train, test = (_split(splits, n, options) for n in (options.train_split, options.eval_split))
    labels = _class_names(train, test, options)
    return DataBundle(
        train=part(Rows(train, options, train_transform(options)), options, "train_examples"),
        evaluation=part(Rows(test, options, eval_transform(options)), options, "eval_examples"),
        info=DataInfo((3, options.size, options.size), len(labels), labels),
    )


def _load(options: HuggingFaceOptions) -> Any:
    """A mapping of splits."""
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            "huggingface: the library datasets is not installed: pip install "
            "'ssm-vision[huggingface]'"
        ) from error
    try:
        if (Path(options.path) / "dataset_dict.json").is_file():
            return datasets.load_from_disk(options.path)
        return datasets.load_dataset(options.path, options.subset)
    # it raises errors of its own, of the file system, of the network and of its parsers
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(
            f"huggingface: {options.path} cannot be loaded ({reason}); check --data.path, "
            "--data.subset and the network"
        ) from error


def _split(splits: Any, name: str, options: HuggingFaceOptions) -> Any:
    if not hasattr(splits, "keys") or name not in splits:
        known = ", ".join(splits.keys()) if hasattr(splits, "keys") else "none"
        raise DataError(
            f"huggingface: {options.path} has no split {name!r}, it has: {known}; choose with "
            "--data.train_split and --data.eval_split"
        )
    for key in ("image", "label"):
        column = getattr(options, key)
        if column not in splits[name].column_names:
            known = ", ".join(splits[name].column_names)
            raise DataError(
                f"huggingface: {options.path} has no column {column!r}, it has: {known}; choose "
                f"with --data.{key}"
            )
    return splits[name]


def _class_names(train: Any, test: Any, options: HuggingFaceOptions) -> tuple[str, ...]:
    """Names of the classes; numbers where the data set has none."""
    names = getattr(train.features[options.label], "names", None)
    if names is not None:
        return tuple(names)
    seen = {label for split in (train, test) for label in split.unique(options.label)}
    if not seen or not all(isinstance(label, int) and label >= 0 for label in seen):
        shown = ", ".join(sorted(map(str, seen))[:5])
        raise DataError(
            f"huggingface: {options.path} has the labels {shown} in {options.label!r}, expected "
            "numbers from 0 or class labels; choose the column with --data.label"
        )
    return tuple(str(i) for i in range(max(seen) + 1))
