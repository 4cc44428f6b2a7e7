"""`ssm-train bench` as a user types it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from ssm_core.cli import main
from ssm_vision import bench_command
from ssm_vision.bench_figure import scaling_figure
from ssm_vision.benchmark import Case, Conditions, Row

PNG = b"\x89PNG"


@pytest.mark.slow
def test_a_table_and_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In processes of their own: one that works, and one that needs more memory than there is."""
    words = ["mnist_rnn", "--image-size", "8", "--batch-size", "2", "100000000000"]
    words += ["--seconds", "0.01", "--threads", "1", "--device", "cpu", "--out", str(tmp_path)]
    assert main(["bench", *words]) == 0
    first, header, fine, failed, *paths = capsys.readouterr().out.splitlines()
    assert first == "cpu, threads: 1, float32"
    assert header.split()[:3] == ["model", "image_size", "batch_size"]
    assert fine.split()[:4] == ["mnist_rnn", "8", "2", "inference"]
    assert failed.endswith("out of memory")
    assert paths == [str(tmp_path / "bench.csv"), str(tmp_path / "bench.png")]
    assert (tmp_path / "bench.png").read_bytes().startswith(PNG)
    with (tmp_path / "bench.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["note"] for row in rows] == ["", "out of memory"]
    assert float(rows[0]["images_per_s"]) > 0
    assert (rows[1]["images_per_s"], rows[0]["precision"], rows[0]["threads"]) == (
        "",
        "float32",
        "1",
    )


def test_every_combination(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Case, Conditions]] = []

    def measured(case: Case, conditions: Conditions) -> Row:
        seen.append((case, conditions))
        return Row(case.model, case.image_size, case.batch_size, case.mode, note="not measured")

    monkeypatch.setattr(bench_command, "measure_apart", measured)
    words = ["mnist_rnn", "resnet18", "--image-size", "32", "64", "--batch-size", "1", "8"]
    words += ["--mode", "inference", "training", "--precision", "bfloat16", "--device", "cpu"]
    assert main(["bench", *words, "--out", str(tmp_path)]) == 0
    cases = [case for case, _ in seen]
    assert len(cases) == len(set(cases)) == 16
    assert Case("resnet18", 64, 8, "training") in cases
    assert {conditions for _, conditions in seen} == {Conditions("cpu", "bfloat16", None, 3.0)}
    assert len((tmp_path / "bench.csv").read_text().splitlines()) == 17
    assert not (tmp_path / "bench.png").exists()  # there is nothing to draw


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mnist_rn"], "unknown model 'mnist_rn': did you mean 'mnist_rnn'"),
        (["mnist_rnn", "--mode", "both"], "--mode is 'both', expected inference or training"),
        (["mnist_rnn", "--image-size", "0"], "--image-size is 0, expected 1 or more"),
        (["mnist_rnn", "--batch-size", "1", "-2"], "--batch-size is -2, expected 1 or more"),
        (["mnist_rnn", "--threads", "0"], "--threads is 0, expected 1 or more"),
        (
            ["mnist_rnn", "--precision", "float8"],
            "--precision is 'float8', expected one of float32",
        ),
        (["mnist_rnn", "--device", "tpu"], "--device is 'tpu', expected auto, cpu, cuda"),
        (["mnist_rnn", "--device", "cuda:99"], "--device is 'cuda:99', but torch finds"),
        ([], "models"),
    ],
)
def test_errors_are_one_line(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *words, "--out", str(tmp_path / "out")]) == 2
    line = capsys.readouterr().err
    assert message in line
    assert line.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_picture() -> None:
    def row(model: str, size: int, mode: str, speed: float | None, note: str = "") -> Row:
        return Row(model, size, 1, mode, 5, 3, 1.0, 1.0, speed, speed, note)

    rows = [
        row("vim_tiny_patch16_224", 224, "inference", 50.0),
        row("vim_tiny_patch16_224", 512, "inference", 9.0),
        row("deit_tiny_patch16_224", 224, "inference", 60.0),
        row("deit_tiny_patch16_224", 512, "inference", None, "out of memory"),
        row("deit_tiny_patch16_224", 512, "training", None, "refused"),
    ]
    figure = scaling_figure(rows, "a machine")
    axes = figure.axes
    assert [a.get_title() for a in axes] == ["inference", "training", "", ""]
    ours, baseline, cross = axes[0].get_lines()
    assert (list(ours.get_xdata()), list(ours.get_ydata())) == ([224, 512], [50.0, 9.0])
    assert (ours.get_linestyle(), baseline.get_linestyle()) == ("-", "--")
    assert (list(cross.get_xdata()), cross.get_marker()) == ([512], "x")
    assert len(axes[1].get_lines()) == 2  # refused is no lack of memory
    assert [t.get_text() for t in axes[2].get_xticklabels()] == ["224", "512"]
