"""`ssm-prune export`: folders that load in a fresh process, smaller models, the 2:4 pattern."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ssm_core.train.checkpoint import load_weights, save_weights
from ssm_core.train.restore import load_run
from ssm_prune.cli.main import main

Train = Callable[..., Path]
LOAD = """
import sys, torch
from pathlib import Path
from ssm_core.train.restore import load_run
assert "ssm_prune" not in sys.modules
x = torch.linspace(-1, 1, 30).view(2, 5, 3)
for folder in sys.argv[1:]:
    model = load_run(Path(folder)).module
    print(repr(model(x).flatten().tolist()))
    print(sum(p.numel() for p in model.parameters()))
"""


def in_a_fresh_process(folders: list[Path], toy_site: Path) -> list[tuple[torch.Tensor, int]]:
    """Outputs and parameters of the models, without ssm-prune."""
    environment = {**os.environ, "PYTHONPATH": str(toy_site), "SSM_DISABLE_PLUGINS": "ssm-prune"}
    command = [sys.executable, "-c", LOAD, *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    lines = done.stdout.strip().splitlines()
    return [
        (torch.tensor([float(value) for value in values.strip("[]").split(",")]), int(count))
        for values, count in zip(lines[::2], lines[1::2], strict=True)
    ]


def outputs(folder: Path) -> torch.Tensor:
    x = torch.linspace(-1, 1, 30).view(2, 5, 3)
    with torch.no_grad():
        result: torch.Tensor = load_run(folder).module(x).flatten()
    return result


def test_dense_is_an_ordinary_model_folder(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "dense"
    assert main(["export", str(run), "--as", "dense", "--out", str(out)]) == 0
    assert "no gain in speed" in capsys.readouterr().out
    ours, theirs = (load_file(f / "model.safetensors") for f in (out, run))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert main(["verify", str(out)]) == 0
    assert main(["export", str(run), "--as", "dense", "--out", str(out)]) == 2
    assert "not empty" in capsys.readouterr().err


def test_removed_is_smaller_and_does_the_same(
    train: Train, tmp_path: Path, toy_site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--prune", "dynamic-cosine", "--prune.units", "channels", "--prune.sparsity", "0.5")
    run, dense, out = train(*words), tmp_path / "dense", tmp_path / "removed"
    assert main(["verify", str(run)]) == 0
    assert main(["export", str(run), "--as", "removed", "--out", str(out)]) == 0
    assert main(["export", str(run), "--as", "dense", "--out", str(dense)]) == 0
    assert "channels" in capsys.readouterr().out
    before, after = (sum(p.numel() for p in load_run(f).module.parameters()) for f in (run, out))
    assert after < before
    small, full = in_a_fresh_process([out, dense], toy_site)
    assert (small[1], full[1]) == (after, before)
    torch.testing.assert_close(full[0], outputs(run))
    torch.testing.assert_close(small[0], outputs(run), rtol=1e-5, atol=1e-6)
    assert main(["verify", str(out)]) == 0
    assert main(["bench", str(run), str(out), "--reps", "5", "--json", str(tmp_path / "b")]) == 0
    shown = capsys.readouterr().out
    assert "masked: stored and multiplied like a dense one" in shown
    assert "removed: smaller than the dense one" in shown
    # verify sees a unit that came back
    weights, metadata = load_weights(run / "model.safetensors")
    model = load_run(run).module
    dead = (weights["tower.layers.0.mixer.out_proj.weight"] == 0).all(dim=0).nonzero()[0]
    with torch.no_grad():
        model.get_parameter("tower.layers.0.mixer.out_proj.weight")[0, dead] = 1.0
    save_weights(run / "model.safetensors", model, metadata)
    assert main(["verify", str(run)]) == 1
    assert "masked but not 0" in capsys.readouterr().err


def test_single_weights_cannot_be_removed(
    run: Path, train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "removed"
    plain = train(out="plain")
    capsys.readouterr()
    assert main(["export", str(run), "--as", "removed", "--out", str(out)]) == 2
    assert "--prune.units channels" in capsys.readouterr().err
    assert main(["export", str(plain), "--as", "removed", "--out", str(out)]) == 2
    assert "nothing is masked" in capsys.readouterr().err
    assert not out.exists()


def test_2_4_is_checked_group_by_group(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "pattern"
    assert main(["export", str(run), "--as", "2:4", "--out", str(out)]) == 2
    assert "not 2:4 sparse" in capsys.readouterr().err
    assert not out.exists()
    _, metadata = load_weights(run / "model.safetensors")
    model = load_run(run).module
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.startswith("tower") and weight.ndim == 2 and weight.shape[1] % 4 == 0:
                weight.view(weight.shape[0], -1, 4)[..., :2] = 0.0
    save_weights(run / "model.safetensors", model, metadata)
    assert main(["export", str(run), "--as", "2:4", "--out", str(out)]) == 0
    assert "to_sparse_semi_structured" in capsys.readouterr().out
    weight = model.get_parameter("tower.layers.1.mixer.out_proj.weight")
    with torch.no_grad():
        weight[3, 4:8] = torch.tensor([1.0, 0.0, 1.0, 1.0])
    save_weights(run / "model.safetensors", model, metadata)
    assert main(["export", str(run), "--as", "2:4", "--out", str(tmp_path / "other")]) == 2
    assert "out_proj.weight (1 of 32 groups)" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_conversion_says_what_it_needs(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", str(run), "--out", str(tmp_path / "x"), "--convert", "--as"]
    assert main([*words, "2:4"]) == 2
    assert "compute capability 8.0" in capsys.readouterr().err
    assert main([*words, "dense"]) == 2
    assert "goes with --as 2:4" in capsys.readouterr().err
