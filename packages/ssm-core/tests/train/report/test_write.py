"""A whole report, from run folders to files."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from ssm_core import hookimpl
from ssm_core.errors import ConfigError
from ssm_core.specs import Picture, Remark
from ssm_core.train.report import report

sys.path.insert(0, str(Path(__file__).parent))
from page_checks import Page as Read


@pytest.fixture
def runs(train, tmp_path) -> list[Path]:
    train("fit", "points-net")
    train("fit", "points-net", "--trainer.seed", "4")
    return [tmp_path / "runs/points-net-001", tmp_path / "runs/points-net-002"]


def test_two_runs(runs, host, tmp_path):
    done = report(host, runs, tmp_path / "out")
    assert [row[0] for row in done.rows] == ["points-net-001", "points-net-002"]
    assert [path.name for path in done.files] == [
        "report.html", "report.md", "curves.png", "tradeoff-accuracy-points.png", "toy.txt",
    ]  # fmt: skip
    assert all(path.is_file() for path in done.files)
    read = Read(done.files[0].read_text())
    assert [image["alt"] for image in read.all("img")] == [
        "Training curves: all runs", "accuracy on points against size and speed: all runs",
    ]  # fmt: skip
    assert read.references == []
    assert "trainer.seed" in read.text
    assert "(measured)" not in read.text


class Painter:
    """A plugin that draws one run and speaks about another."""

    @hookimpl
    def ssm_report(self, runs, folder):
        (folder / "a.png").write_bytes(b"\x89PNG")
        yield Picture(folder / "a.png", runs[1], "Title of it")
        yield Remark(runs[0], "too blue")


class Clumsy:
    """A plugin that fails."""

    @hookimpl
    def ssm_report(self, runs):
        return [runs[0] / runs]


def test_pictures_and_remarks_of_plugins(runs, host, tmp_path):
    host.register(Painter(), "painter 1.0")
    done = report(host, runs, tmp_path / "out")
    page = done.files[0].read_text()
    first, second = page.index('id="run-0"'), page.index('id="run-1"')
    assert first < page.index("too blue") < second < page.index("Title of it")
    text = (tmp_path / "out/report.md").read_text()
    assert "![Title of it](a.png)" in text
    assert "- points-net-001: too blue" in text


def test_a_plugin_that_fails_is_named_and_stops_nothing(runs, host, tmp_path, caplog):
    host.register(Clumsy(), "clumsy 1.0", name="clumsy")
    with caplog.at_level(logging.WARNING):
        done = report(host, runs, tmp_path / "out")
    assert "plugin clumsy has failed: TypeError(" in caplog.text
    assert "plugin clumsy has failed: TypeError(" in Read(done.files[0].read_text()).text
    assert (tmp_path / "out/toy.txt") in done.files


def test_a_broken_run_is_named_and_stops_nothing(runs, host, tmp_path, caplog):
    (runs[0] / "metrics.csv").unlink()
    with caplog.at_level(logging.WARNING):
        done = report(host, runs, tmp_path / "out")
    message = f"{runs[0] / 'metrics.csv'}: missing or damaged"
    assert f"points-net-001: {message}" in caplog.text
    read = Read(done.files[0].read_text())
    assert message in read.text
    assert "points-net-002" in read.text
    assert [image["alt"] for image in read.all("img")] == ["Training curves: all runs"]


def test_throughput_is_measured_where_the_log_has_none(train, host, tmp_path):
    for _ in range(2):
        train("fit", "points-net", "--trainer.max_steps", "2")
    runs = [tmp_path / f"runs/points-net-00{i}" for i in (1, 2)]
    (runs[1] / "model.safetensors").unlink()
    (runs[1] / "checkpoints/last.safetensors").unlink()
    done = report(host, runs, tmp_path / "out")
    assert done.rows[0][-1].endswith("(measured)")
    assert done.rows[1][-1] == "-"
    assert "its throughput cannot be measured: " in Read(done.files[0].read_text()).text


def test_one_run_is_not_measured(train, host, tmp_path, monkeypatch):
    train("fit", "points-net", "--trainer.max_steps", "2")
    monkeypatch.setattr("ssm_core.train.report.write.measure", lambda *_: pytest.fail("measured"))
    done = report(host, [tmp_path / "runs/points-net-001"], tmp_path / "out")
    assert done.rows[0][-1] == "-"


def test_what_is_no_run_folder(host, tmp_path):
    with pytest.raises(ConfigError, match="not a run folder"):
        report(host, [tmp_path], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_matplotlib_there_are_tables(runs, host, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    done = report(host, runs, tmp_path / "out")
    assert [path.name for path in done.files] == ["report.html", "report.md", "toy.txt"]
