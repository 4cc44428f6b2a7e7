"""`ssm-prune bench`: names, states, figures with their bounds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ssm_prune.cli.main import main


def test_a_masked_run_beside_its_dense_recipe_and_its_file(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, threads = tmp_path / "bench.json", torch.get_num_threads()
    options = ("--batch", "1", "3", "--reps", "6", "--threads", "1", "--json", str(out))
    assert main(["bench", "toy", str(run), *options]) == 0
    shown = capsys.readouterr().out
    assert "masked: stored and multiplied like a dense one" in shown
    assert "95 % of bootstrap samples" in shown
    content = json.loads(out.read_text(encoding="utf-8"))
    assert [m["state"] for m in content["models"]] == ["dense", "masked"]
    assert content["models"][0]["parameters"] == content["models"][1]["parameters"]
    assert [row["batch"] for row in content["rows"]] == [1, 3]
    for row in content["rows"]:
        assert row["low"] <= row["ratio"] <= row["high"]
        assert row["ratio"] == pytest.approx(row["first_ms"] / row["second_ms"])
        assert row["repetitions"] == 6
    assert "torch" in content["versions"]
    assert torch.get_num_threads() == threads
    file = str(run / "model.safetensors")
    assert main(["bench", file, str(run), "--reps", "5", "--json", str(out)]) == 0
    states = [m["state"] for m in json.loads(out.read_text(encoding="utf-8"))["models"]]
    assert states == ["masked", "masked"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--reps", "2"), "--reps is 2, expected 5 or more"),
        (("--batch", "0"), "--batch"),
        (("--device", "nonsense"), "--device nonsense cannot be used here"),
    ],
)
def test_bad_options_are_one_line(
    run: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], expected: str
) -> None:
    capsys.readouterr()
    assert main(["bench", str(run), str(run), *words]) == 2
    assert expected in capsys.readouterr().err


def test_a_file_that_does_not_say_its_model_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    assert main(["bench", str(tmp_path / "x.safetensors"), str(run)]) == 2
    assert "does not say what model it is of" in capsys.readouterr().err
