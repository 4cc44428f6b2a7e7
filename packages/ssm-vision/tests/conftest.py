"""What several tests need: real data where it is there, files made on the spot, a trained run."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ssm_core import DataInfo
from ssm_core.cli import main

REPOSITORY = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(Path(__file__).parent))  # helpers beside the tests
SMALL = ["--model.d_model", "16", "--model.mixer_options", "{d_state: 2}"]


@pytest.fixture(autouse=True)
def _same_numbers_each_time() -> None:
    torch.manual_seed(0)


@pytest.fixture
def info() -> DataInfo:
    """Colour images of 8 x 12, five classes: every axis has a length of its own."""
    return DataInfo(input_shape=(3, 8, 12), n_outputs=5, labels=tuple("abcde"))


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of the real data sets ($SSM_DATA_ROOT, default: beside the repository)."""
    root = Path(os.environ.get("SSM_DATA_ROOT", REPOSITORY.parent / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"no data folder {root} (SSM_DATA_ROOT)")
    return root


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short run of digits-bimamba."""
    out = tmp_path_factory.mktemp("runs")
    assert (
        main(["fit", "digits-bimamba", "--out", str(out), "--trainer.max_steps", "5", *SMALL]) == 0
    )
    return out / "digits-bimamba-001"


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """train/ and val/ with red, green and blue images of odd sizes, four and two per class."""
    colours = {"blue": (20, 30, 220), "green": (10, 200, 30), "red": (230, 20, 10)}
    random = np.random.default_rng(0)
    for part, count in (("train", 4), ("val", 2)):
        for name, colour in colours.items():
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = np.clip(np.array(colour) + random.integers(-20, 20, (23, 31, 3)), 0, 255)
                Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / part / name / f"{i}.png")
    return tmp_path
