"""timm's own training script on our models, where it is found, and the runner for its scripts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ssm_core.errors import ConfigError
from ssm_vision import create_model, timm_script

VIM = ("vim_tiny_patch16_224", "img_size=32", "embed_dim=16", "depth=2")
VMAMBA = ("vmamba_tiny_s1l8", "depths=(1,1,1,1)", "dims=(8,8,16,16)")
LAYERWISE = ("--opt", "adamw", "--layer-decay", "0.7", "--grad-checkpointing")
MIXED = (
    "--opt",
    "lamb",
    "--amp",
    "--amp-dtype",
    "bfloat16",
    "--mixup",
    "0.8",
    "--drop-path",
    "0.1",
)
COMMON = (
    *("--img-size", "32", "--num-classes", "3", "--batch-size", "4", "--workers", "0"),
    *("--epochs", "1", "--warmup-epochs", "0", "--lr", "1e-3", "--model-ema", "--device", "cpu"),
    *("--no-prefetcher", "--experiment", "run"),
)


@pytest.fixture(scope="module")
def train_script() -> Path:
    """timm's train.py: $TIMM_TRAIN_SCRIPT, or that of a checkout that timm is imported from."""
    import timm

    beside = Path(timm.__file__).parents[1] / "train.py"
    path = Path(os.environ.get("TIMM_TRAIN_SCRIPT", beside))
    if not path.is_file():
        pytest.skip(f"no {path}: timm's packages leave it out (TIMM_TRAIN_SCRIPT)")
    return path.resolve()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for part, count in (("train", 4), ("validation", 2)):
        for name in "abc":
            folder = tmp_path / "images" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(256, size=(40, 36, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / "images"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "options", "runner"),
    [
        (VIM, (*LAYERWISE, "--device-modules", "ssm_vision"), ()),
        (VMAMBA, MIXED, ("-m", "ssm_vision.timm_script")),
    ],
    ids=["vim", "vmamba"],
)
def test_the_training_script(
    train_script: Path,
    images: Path,
    model: tuple[str, ...],
    options: tuple[str, ...],
    runner: tuple[str, ...],
) -> None:
    name, *overrides = model
    out = images.parent / "out"
    words = [str(train_script), str(images), "--model", name, "--model-kwargs", *overrides]
    done = subprocess.run(
        [sys.executable, *runner, *words, *COMMON, *options, "--output", str(out)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "Best metric" in done.stderr
    assert "Test (EMA)" in done.stderr
    given = {"embed_dim": 16, "depth": 2, "img_size": 32}
    if name.startswith("vmamba"):
        given = {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16)}
    trained = create_model(
        name, num_classes=3, checkpoint=out / "run" / "checkpoint-0.pth.tar", **given
    )
    assert trained(torch.zeros(1, 3, 32, 32)).isfinite().all()


def test_the_runner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "beside.py").write_text("WORD = 'beside'\n")
    (tmp_path / "script.py").write_text(
        "import sys, timm, beside\n"
        "if __name__ == '__main__':\n"
        "    print(sys.argv[1:], beside.WORD, timm.is_model('vim_tiny_patch16_224'))\n"
    )
    monkeypatch.setattr(sys, "argv", ["untouched"])
    monkeypatch.setattr(sys, "path", [*sys.path])
    timm_script.main([str(tmp_path / "script.py"), "--lr", "1"])
    assert capsys.readouterr().out == "['--lr', '1'] beside True\n"
    for words in ([], [str(tmp_path / "absent.py")]):
        with pytest.raises(ConfigError, match=r"expected a file such as train\.py"):
            timm_script.main(words)
