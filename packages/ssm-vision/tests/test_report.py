from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest

from ssm_core import Picture, Remark
from ssm_core.cli import main
from ssm_vision import report
from ssm_vision.report import draw_run, draw_runs
from ssm_vision.scene import Scene

PNG = b"\x89PNG"
KINDS = ("confusion", "receptive-field", "delta")


def test_fit_and_report_draw_the_pictures(run: Path, tmp_path: Path) -> None:
    names = {f"{kind}-{run.name}.png" for kind in KINDS}
    assert names <= {path.name for path in (run / "report").iterdir()}
    assert main(["report", str(run), "--out", str(tmp_path)]) == 0
    assert names <= {path.name for path in tmp_path.iterdir()}
    assert all((tmp_path / name).read_bytes().startswith(PNG) for name in names)
    page = (tmp_path / "report.html").read_text()
    assert page.count('<img src="data:image/png;base64,') == 4  # and the curves
    for title in ("Confusion matrix", "Receptive field", "Step sizes"):
        assert f"<h3>{title}</h3>" in page


def test_a_run_of_another_task_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("recipe: other\ntask: {name: next-character}\n")
    assert draw_run(tmp_path, "x", tmp_path) == []
    (tmp_path / "config.yaml").write_text("recipe: other\n")
    assert draw_run(tmp_path, "x", tmp_path) == []


def test_every_task_has_its_own_pictures(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Scene] = []

    def draw(scene: Scene) -> list[Picture]:
        seen.append(scene)
        return [Picture(scene.folder / "mine.png", scene.restored.folder)]

    monkeypatch.setitem(report.PAINTERS, "classification", draw)
    pictures = draw_run(run, "a name/of mine", tmp_path)
    assert [picture.path.name for picture in pictures] == [
        "mine.png", "receptive-field-a name-of mine.png", "delta-a name-of mine.png",
    ]  # fmt: skip
    assert {picture.run for picture in pictures} == {run}
    assert (seen[0].name, seen[0].source) == ("a name/of mine", "test images of digits")
    assert not seen[0].model.training


def test_a_broken_run_does_not_stop_the_others(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = tmp_path / "broken-001"
    shutil.copytree(run, broken)
    shutil.rmtree(broken / "checkpoints")
    (broken / "model.safetensors").unlink()
    with caplog.at_level(logging.WARNING):
        drawn = draw_runs([broken, run], tmp_path / "out")
    remark, *pictures = drawn
    assert isinstance(remark, Remark)
    assert remark.run == broken
    assert "last.safetensors: no such file" in remark.text
    names = [picture.path.name for picture in pictures if isinstance(picture, Picture)]
    assert names == [f"{kind}-{run.name}.png" for kind in KINDS]
    assert f"no pictures of {broken}: " in caplog.text
    assert "last.safetensors: no such file" in caplog.text


def test_a_picture_that_cannot_be_drawn_at_all(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(scene: Scene) -> list[Picture]:
        raise ZeroDivisionError("by zero")

    monkeypatch.setitem(report.PAINTERS, "classification", fail)
    (remark,) = draw_runs([run], tmp_path)
    assert isinstance(remark, Remark)
    assert remark.text == "no pictures: ZeroDivisionError('by zero')"


def test_a_model_without_step_sizes_has_no_picture_of_them(tmp_path: Path) -> None:
    words = ["fit", "digits-bimamba", "--out", str(tmp_path), "--trainer.max_steps", "1"]
    words += ["--model.mixer", "rnn", "--model.mixer_options", "{}", "--model.d_model", "8"]
    assert main(words) == 0
    run = tmp_path / "digits-bimamba-001"
    pictures = {path.name for path in (run / "report").glob("*.png")} - {"curves.png"}
    assert pictures == {f"confusion-{run.name}.png", f"receptive-field-{run.name}.png"}
