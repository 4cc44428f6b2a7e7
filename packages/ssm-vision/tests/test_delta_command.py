"""`ssm-train delta` as a user types it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssm_core.cli import main
from ssm_vision import create_model
from ssm_vision import pretrained as weights_files
from ssm_vision.presets import save_pretrained

PNG = b"\x89PNG"


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights in the package (untrained ones), made for the test."""
    monkeypatch.setattr(weights_files, "FOLDER", tmp_path / "weights")
    for name in ("mnist_bimamba", "mnist_rnn"):
        save_pretrained(name, create_model(name), {"accuracy": 0.1})


@pytest.mark.parametrize("images", [[], ["--images", "digits"]])
def test_a_run_on_its_own_data(
    run: Path, tmp_path: Path, images: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sub" / "delta.png"
    assert main(["delta", str(run), "--out", str(out), *images]) == 0
    assert out.read_bytes().startswith(PNG)
    assert capsys.readouterr().out.strip() == str(out)


def test_a_run_on_an_image_file(run: Path, tmp_path: Path) -> None:
    photo, out = tmp_path / "photo.png", tmp_path / "delta.png"
    Image.fromarray(np.zeros((40, 30, 3), np.uint8)).save(photo)
    words = ["delta", str(run), "--images", str(photo), "--invert", "--out", str(out)]
    assert main(words) == 0
    assert out.read_bytes().startswith(PNG)


@pytest.mark.usefixtures("packaged")
def test_a_packaged_model_needs_no_data(tmp_path: Path) -> None:
    out = tmp_path / "delta.png"
    assert main(["delta", "mnist_bimamba", "--root", str(tmp_path), "--out", str(out)]) == 0
    assert out.read_bytes().startswith(PNG)


@pytest.mark.usefixtures("packaged")
def test_a_packaged_model_on_mnist(tmp_path: Path, data_root: Path) -> None:
    if not (data_root / "MNIST" / "raw").is_dir():
        pytest.skip(f"no MNIST/raw in {data_root} (SSM_DATA_ROOT)")
    out = tmp_path / "delta.png"
    assert main(["delta", "mnist_bimamba", "--root", str(data_root), "--out", str(out)]) == 0
    assert out.read_bytes().startswith(PNG)


def check_error(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["delta", *words]) == 2
    line = capsys.readouterr().err
    assert message in line
    assert line.count("\n") == 1


@pytest.mark.usefixtures("packaged")
def test_errors_are_one_line(
    run: Path, tmp_path: Path, image_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "x.png")]
    check_error(["mnist_bimanba", *out], "did you mean 'mnist_bimamba'", capsys)
    check_error([str(tmp_path), *out], "not a run folder", capsys)
    check_error(["mnist_rnn", *out], "no step size Delta to draw", capsys)
    check_error(["mnist_causal", *out], "mnist_causal.safetensors: no such weights", capsys)
    absent = ["--images", "absent.png"]
    check_error([str(run), *absent, *out], "no such image file and no such data set", capsys)
    check_error([str(run), "--images", "image-folder", "--root", str(image_folder), *out],
                "has images (3, 64, 64), the model reads (1, 8, 8)", capsys)  # fmt: skip
    assert not (tmp_path / "x.png").exists()
