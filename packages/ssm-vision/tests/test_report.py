from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
import torch

from ssm_core.cli import main
from ssm_core.train.restore import load_run
from ssm_vision.report import draw_run, draw_runs, examples_of, predict

PNG = b"\x89PNG"


def test_fit_and_report_draw_the_pictures(run: Path, tmp_path: Path) -> None:
    names = {f"confusion-{run.name}.png", f"delta-{run.name}.png"}
    assert names <= {path.name for path in (run / "report").iterdir()}
    assert main(["report", str(run), "--out", str(tmp_path)]) == 0
    assert names <= {path.name for path in tmp_path.iterdir()}
    assert all((tmp_path / name).read_bytes().startswith(PNG) for name in names)


def test_predictions_are_the_models(run: Path) -> None:
    restored = load_run(run)
    bundle = restored.config.specs["data"].build(restored.config.typed["data"])
    labels, predictions = predict(restored, bundle)
    images, truth = bundle.evaluation.__getitems__(range(len(bundle.evaluation)))
    assert torch.equal(labels, truth)
    with torch.no_grad():
        assert torch.equal(predictions, restored.module(images).argmax(1))
    shown = examples_of(bundle, [3, 1], "here")
    torch.testing.assert_close(shown.images, images[[3, 1]])
    assert shown.labels is not None
    assert shown.labels.tolist() == truth[[3, 1]].tolist()


def test_a_run_of_another_model_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("recipe: other\nmodel: {name: char-lm}\n")
    assert draw_run(tmp_path, tmp_path) == []


def test_a_broken_run_does_not_stop_the_others(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = tmp_path / "broken-001"
    shutil.copytree(run, broken)
    shutil.rmtree(broken / "checkpoints")
    (broken / "model.safetensors").unlink()
    with caplog.at_level(logging.WARNING):
        pictures = draw_runs([broken, run], tmp_path / "out")
    assert [path.name for path in pictures] == [
        f"confusion-{run.name}.png",
        f"delta-{run.name}.png",
    ]
    assert f"no pictures of {broken}: " in caplog.text
    assert "last.safetensors: no such file" in caplog.text


def test_a_model_without_step_sizes_has_a_confusion_matrix_only(tmp_path: Path) -> None:
    words = ["fit", "digits-bimamba", "--out", str(tmp_path), "--trainer.max_steps", "1"]
    words += ["--model.mixer", "rnn", "--model.mixer_options", "{}", "--model.d_model", "8"]
    assert main(words) == 0
    run = tmp_path / "digits-bimamba-001"
    pictures = {path.name for path in (run / "report").glob("*.png")} - {"curves.png"}
    assert pictures == {f"confusion-{run.name}.png"}
