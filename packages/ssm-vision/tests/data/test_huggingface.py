"""The Hugging Face sets: against a stand-in for the library, and with it where it is installed."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from ssm_core.errors import ConfigError, DataError
from ssm_vision.data import huggingface
from ssm_vision.data.huggingface import HuggingFaceOptions


class Table:
    """As much of a `datasets.Dataset` as is used."""

    def __init__(self, columns: dict[str, list[Any]], names: list[str] | None = None) -> None:
        self.columns = columns
        self.column_names = list(columns)
        self.features = {name: SimpleNamespace() for name in columns}
        if names is not None:
            self.features["label"].names = names

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {name: values[index] for name, values in self.columns.items()}

    def unique(self, column: str) -> list[Any]:
        return sorted(set(self.columns[column]))


def pictures(count: int) -> list[Image.Image]:
    return [Image.new("L", (20, 30), 10 * i) for i in range(count)]


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> dict[str, Table]:
    """Splits that the stand-in returns for the name "some/pictures"."""
    splits = {
        "train": Table({"image": pictures(4), "label": [0, 1, 1, 0]}, ["cat", "dog"]),
        "test": Table({"image": pictures(2), "label": [1, 0]}, ["cat", "dog"]),
    }
    module: Any = ModuleType("datasets")

    def load_dataset(path: str, subset: str | None) -> dict[str, Table]:
        if path != "some/pictures":
            raise FileNotFoundError(f"Couldn't find {path}\non the Hub")
        return splits

    module.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)
    return splits


def test_reads_columns_and_class_names(library: dict[str, Table]) -> None:
    bundle = huggingface.build(HuggingFaceOptions(path="some/pictures", size=16))
    assert bundle.info.labels == ("cat", "dog")
    assert bundle.info.input_shape == (3, 16, 16)
    image, label = bundle.evaluation[1]
    assert label == 0
    assert float(image[0, 0, 0]) == pytest.approx((10 / 255 - 0.485) / 0.229, abs=1e-5)
    assert len(bundle.train) == 4
    few = huggingface.build(HuggingFaceOptions(path="some/pictures", train_examples=3))
    assert len(few.train) == 3


def test_columns_and_splits_by_option(library: dict[str, Table]) -> None:
    library["valid"] = library["train"] = Table({"img": pictures(3), "fine": [0, 4, 2]})
    options = HuggingFaceOptions(
        path="some/pictures", eval_split="valid", image="img", label="fine", size=16
    )
    bundle = huggingface.build(options)
    assert bundle.info.labels == ("0", "1", "2", "3", "4")
    assert bundle.evaluation[1][1] == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "no/such"}, r"no/such cannot be loaded \(Couldn't find no/such on the Hub\)"),
        ({"eval_split": "dev"}, "has no split 'dev', it has: train, test; choose with"),
        ({"image": "img"}, "has no column 'img', it has: image, label; choose with --data.image"),
        ({"label": "y"}, "has no column 'y', it has: image, label; choose with --data.label"),
    ],
)
def test_errors_say_what_there_is(
    library: dict[str, Table], options: dict[str, str], message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        huggingface.build(HuggingFaceOptions(**({"path": "some/pictures"} | options)))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_labels_that_are_no_numbers(library: dict[str, Table]) -> None:
    library["train"] = library["test"] = Table({"image": pictures(2), "label": ["a", "b"]})
    with pytest.raises(DataError, match=r"has the labels a, b in 'label', expected numbers"):
        huggingface.build(HuggingFaceOptions(path="some/pictures"))


def test_rows_without_an_image(library: dict[str, Table]) -> None:
    library["test"].columns["image"][0] = None
    bundle = huggingface.build(HuggingFaceOptions(path="some/pictures"))
    with pytest.raises(DataError, match="row 0 has no readable image in the column 'image'"):
        bundle.evaluation[0]


def test_the_library_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install 'ssm-vision\[huggingface\]'"):
        huggingface.build(HuggingFaceOptions(path="some/pictures"))
    with pytest.raises(ConfigError, match=r"data\.path is empty: pass --data\.path"):
        HuggingFaceOptions()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_real_library_reads_what_it_saved(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="the extra huggingface is not installed")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    )
    split = datasets.Dataset.from_dict(
        {"image": pictures(3), "label": [0, 1, 1]}, features=features
    )
    datasets.DatasetDict({"train": split, "test": split}).save_to_disk(str(tmp_path / "saved"))
    bundle = huggingface.build(HuggingFaceOptions(path=str(tmp_path / "saved"), size=16))
    assert bundle.info.labels == ("cat", "dog")
    image, label = bundle.evaluation[2]
    assert label == 1
    assert float(image[0, 0, 0]) == pytest.approx((20 / 255 - 0.485) / 0.229, abs=1e-5)
