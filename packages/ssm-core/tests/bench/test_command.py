"""`ssm-train bench` as a user types it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from toy_benchmarks import SQUARES

from ssm_core import PluginHost
from ssm_core.bench import command
from ssm_core.bench.cases import Case, Conditions, Row
from ssm_core.bench.figure import scaling_figure
from ssm_core.errors import SsmError


def test_every_combination(
    host: PluginHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Case, Conditions]] = []

    def measured(case: Case, conditions: Conditions, preload: tuple[str, ...]) -> Row:
        seen.append((case, conditions))
        return Row(case.model, case.size, case.batch_size, case.mode, note="not measured")

    monkeypatch.setattr(command, "measure_apart", measured)
    words = ["toy_square", "toy_baseline", "--side", "32", "64", "--batch-size", "1", "8"]
    words += ["--mode", "inference", "training", "--precision", "bfloat16", "--device", "cpu"]
    assert command.bench_command(host, [*words, "--out", str(tmp_path)]) == 0
    cases = [case for case, _ in seen]
    assert len(cases) == len(set(cases)) == 16
    assert Case("squares", "toy_baseline", 64, 8, "training") in cases
    assert {conditions for _, conditions in seen} == {Conditions("cpu", "bfloat16", None, 3.0)}
    assert len((tmp_path / "bench.csv").read_text().splitlines()) == 17
    assert not (tmp_path / "bench.png").exists()  # there is nothing to draw


def test_a_table_and_a_picture(
    host: PluginHost,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def measured(case: Case, conditions: Conditions, preload: tuple[str, ...]) -> Row:
        if case.size > 64:
            return Row(case.model, case.size, case.batch_size, case.mode, note="out of memory")
        return Row(case.model, case.size, case.batch_size, case.mode, 5, 3, 2.0, 1.5, 4e3, 7.0)

    monkeypatch.setattr(command, "measure_apart", measured)
    words = ["toy_line", "--line-length", "64", "128", "--device", "cpu", "--threads", "2"]
    assert command.bench_command(host, [*words, "--out", str(tmp_path)]) == 0
    first, header, fine, failed, *paths = capsys.readouterr().out.splitlines()
    assert first == "cpu, threads: 2, float32"
    assert header.split() == [
        *("model", "line_length", "batch_size", "mode", "parameters", "latency_ms"),
        *("points_per_s", "memory_mb"),
    ]
    assert fine.split() == ["toy_line", "64", "1", "inference", "5", "2.00", "4000.0", "7"]
    assert failed.endswith("out of memory")
    assert paths == [str(tmp_path / "bench.csv"), str(tmp_path / "bench.png")]
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "bench.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["note"] for row in rows] == ["", "out of memory"]
    assert (rows[0]["points_per_s"], rows[1]["points_per_s"]) == ("4000.0", "")
    assert (rows[0]["line_length"], rows[0]["precision"], rows[0]["threads"]) == (
        *("64", "float32", "2"),
    )


def test_the_size_has_a_default(
    host: PluginHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def measured(case: Case, conditions: Conditions, preload: tuple[str, ...]) -> Row:
        sizes.append(case.size)
        return Row(case.model, case.size, case.batch_size, case.mode)

    monkeypatch.setattr(command, "measure_apart", measured)
    command.bench_command(host, ["toy_line", "--out", str(tmp_path)])
    assert sizes == [64]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["toy_squar"], "unknown model 'toy_squar': did you mean 'toy_square'"),
        (["toy_square", "toy_line"], "timed against --side, toy_line against --line-length"),
        (["toy_line", "--side", "8"], "--side is for squares, but toy_line is one of lines"),
        (["toy_square", "--mode", "both"], "--mode is 'both', expected inference or training"),
        (["toy_square", "--side", "0"], "--side is 0, expected 1 or more"),
        (["toy_square", "--batch-size", "1", "-2"], "--batch-size is -2, expected 1 or more"),
        (["toy_square", "--threads", "0"], "--threads is 0, expected 1 or more"),
        (
            ["toy_square", "--precision", "float8"],
            "--precision is 'float8', expected one of float32",
        ),
        (["toy_square", "--device", "tpu"], "--device is 'tpu', expected auto, cpu, cuda"),
        (["toy_square", "--device", "cuda:99"], "--device is 'cuda:99', but torch finds"),
        ([], "models"),
    ],
)
def test_errors_are_one_line(
    host: PluginHost, words: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(SsmError) as caught:
        command.bench_command(host, [*words, "--out", str(tmp_path / "out")])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_picture() -> None:
    def row(model: str, size: int, mode: str, speed: float | None, note: str = "") -> Row:
        return Row(model, size, 1, mode, 5, 3, 1.0, 1.0, speed, speed, note)

    rows = [
        row("toy_square", 224, "inference", 50.0),
        row("toy_square", 512, "inference", 9.0),
        row("toy_baseline", 224, "inference", 60.0),
        row("toy_baseline", 512, "inference", None, "out of memory"),
        row("toy_baseline", 512, "training", None, "refused"),
    ]
    figure = scaling_figure(rows, SQUARES, "a machine")
    axes = figure.axes
    assert [a.get_title() for a in axes] == ["inference", "training", "", ""]
    assert axes[0].get_ylabel() == "squares / s"
    ours, baseline, cross = axes[0].get_lines()
    assert (list(ours.get_xdata()), list(ours.get_ydata())) == ([224, 512], [50.0, 9.0])
    assert (ours.get_linestyle(), baseline.get_linestyle()) == ("-", "--")
    assert (list(cross.get_xdata()), cross.get_marker()) == ([512], "x")
    assert len(axes[1].get_lines()) == 2  # refused is no lack of memory
    assert [t.get_text() for t in axes[2].get_xticklabels()] == ["224", "512"]
