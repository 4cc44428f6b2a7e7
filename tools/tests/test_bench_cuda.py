"""What the CUDA benchmark computes without a GPU: floors, targets, rows; and that it runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from bench.cuda import cases, floors, measure, scan, targets, tiny
from bench.cuda.clock import Clock
from bench.cuda.floors import ASSUMED, Work
from bench.cuda.row import COLUMNS, CudaRow
from bench.cuda.subject import Problem, Subject, differentiable, in_place, turn
from bench.report import OURS, Report
from hypothesis import given
from hypothesis import strategies as st

TOOLS = Path(__file__).parents[1]
CPU = torch.device("cpu")

#: name -> milliseconds of all calls of a network pass: forward memory and exponentials, backward
#: memory and exponentials; the published table of floors, with the number of calls
FLOORS = {
    "Vim-Ti 224 b128": (48, 1.10, 2.41, 1.78, 2.65),
    "Vim-S 1248 b8": (48, 4.21, 9.29, 6.78, 10.2),
    "MambaVision-T st3 b128": (4, 0.02, 0.04, 0.04, 0.05),
    "mamba-130m b8": (24, 1.41, 3.13, 2.26, 3.44),
    "mamba-1.4b b8": (48, 7.50, 16.7, 12.0, 18.3),
}


@pytest.mark.parametrize("name", FLOORS)
def test_floors_are_those_of_the_table(name: str) -> None:
    calls, *expected = FLOORS[name]
    works = floors.scan(cases.SCANS[name], 2)
    found = [
        1e3 * calls * part
        for what in ("forward", "backward")
        for part in (
            works[what].moved_bytes / ASSUMED.bandwidth,
            works[what].exponentials / ASSUMED.exponentials,
        )
    ]
    assert found == pytest.approx(expected, rel=0.01, abs=0.005)


def test_floors_of_vmamba_over_its_stages() -> None:
    blocks = {"st1": 2, "st2": 2, "st3": 8, "st4": 2}
    total = sum(
        calls * floors.floor_s(floors.scan(cases.SCANS[f"VMamba-T {s} b128"], 2), what, ASSUMED)
        for s, calls in blocks.items()
        for what in ("forward",)
    )
    assert 1e3 * total == pytest.approx(1.13, rel=0.03)


def test_the_floor_is_the_slowest_part_and_passes_add_up() -> None:
    rates = floors.Rates(10.0, 20.0, 40.0, "")
    assert Work(10, 10, 10).seconds(rates) == 1
    assert Work(10, 40, 10).seconds(rates) == 2
    assert Work(10, 40, 120).seconds(rates) == 3
    works = {"forward": Work(10), "backward": Work(30)}
    assert floors.floor_s(works, "forward+backward", rates) == 4
    assert floors.moved_bytes(works, "forward+backward") == 40


@given(
    st.sampled_from(
        [
            (floors.scan, cases.SCANS),
            (floors.conv, cases.CONVS),
            (floors.conv_step, cases.CONV_STEPS),
            (floors.ssd, cases.SSDS),
            (floors.diagonal, cases.DIAGONALS),
            (floors.step, cases.STEPS),
        ]
    ),
    st.sampled_from([2, 4]),
)
def test_every_case_has_a_floor_that_moves_each_number(operator: tuple, itemsize: int) -> None:
    function, table = operator
    for case in table.values():
        for work in function(case, itemsize).values():
            assert work.moved_bytes >= 2 * itemsize * case.elements
            assert 0 < work.seconds(ASSUMED) < 0.01


def row(part: str, case: str, what: str, subject: str, **more: object) -> dict[str, object]:
    empty = {"value": 1.0, "of_limit": None, "ratio": None}
    return {"part": part, "case": case, "what": what, "subject": subject, **empty, **more}


def test_targets_find_their_rows() -> None:
    rows = [
        row("cuda scan", "mamba-130m b8 bf16", "forward", OURS, of_limit=0.75),
        row("cuda scan", "Vim-S 224 b128 bf16", "forward", OURS, of_limit=0.72),
        row("cuda scan", "MambaVision-T st4 b128 bf16", "forward", OURS, of_limit=0.4),
        row("cuda scan", "mamba-130m b8 bf16", "forward", scan.MAMBA, ratio=2.0),
        row("cuda scan", "mamba-130m b8 bf16", "forward", scan.MAMBA_DIRECT, ratio=1.4),
        row("cuda scan", "mamba-130m b8 fp32", "forward", scan.MAMBA, ratio=0.9),
        row("cuda ssd", "mamba2-1.3b b8 bf16", "backward", "mamba-ssm, Triton", ratio=1.2),
        row("cuda step", "mamba-130m b1 bf16", measure.REPEATED, OURS, value=0),
        row("cuda conv-step", "mamba-130m b1 bf16", measure.REPEATED, OURS, value=2),
    ]
    found = {target.name: target.find(rows) for target in targets.TARGETS}
    values = {name: figure.value for name, figure in found.items() if figure is not None}
    assert values == {
        "scan forward, part of floor": 0.72,
        "same, every listed shape": 0.4,
        "forward vs mamba, l >= 2048": 1.4,
        "forward vs mamba, all": 0.9,
        "SSD backward vs Triton": 1.2,
        "unequal results of 3 runs": 2,
    }
    met = {t.name: t.met(values[t.name]) for t in targets.TARGETS if t.name in values}
    assert [name for name, is_met in met.items() if is_met] == [
        "scan forward, part of floor",
        "SSD backward vs Triton",
    ]


def test_every_target_is_about_listed_shapes() -> None:
    assert len(targets.LONG) == 5
    assert len(targets.SHORT) == 6
    assert set(targets.LONG + targets.SHORT + targets.FLOOR) < set(targets.EVERY)
    assert len({target.name for target in targets.TARGETS}) == len(targets.TARGETS)


def test_lines_have_the_columns_of_their_heading() -> None:
    full = CudaRow("cuda scan", "case", "forward", OURS, 12.5e-6, runs=50, of_limit=0.5, ratio=2.0)
    line = CudaRow(**{**vars(full), "moved_bytes": 3 * 2**20, "peak_bytes": 2**21}).line()
    assert "12.5 us" in line
    assert line.index("3.0 MiB") + len("3.0 MiB") == COLUMNS.index("moved") + len("moved")
    assert line.index("2.00x") + len("2.00x") == COLUMNS.index("to ours") + len("to ours")
    assert line.index("2.0 MiB") + len("2.0 MiB") == COLUMNS.index("peak") + len("peak")
    assert "not run" in CudaRow("cuda scan", "case", "forward", "peer", None).line()
    assert "1.00e-03" in CudaRow("cuda scan", "case", "error", OURS, 1e-3, unit="").line()


Named = tuple[str, Callable[[], Subject]]


def squares(name: str, factor: float) -> Named:
    x = torch.linspace(-1, 1, 6).reshape(1, 2, 3).requires_grad_()

    def make() -> Subject:
        return differentiable(name, lambda: factor * x * x, {"x": x}, torch.ones(1, 2, 3))

    return name, make


def problem_of(*subjects: Named) -> Problem:
    _, exact = squares("exact", 1.0)
    works = {"forward": Work(8.0), "backward": Work(8.0)}
    return Problem("squares fp32", exact().results, dict(subjects), works, 6, 1e-3)


SETTINGS = measure.Settings(Clock(CPU), ASSUMED, rounds=2, budget_s=0.01)


def test_a_wrong_result_is_not_timed() -> None:
    def missing() -> Subject:
        raise ImportError("no such peer")

    report = Report("cuda squares", row_type=CudaRow, columns=COLUMNS)
    subjects = (squares(OURS, 1.0), squares("wrong", 1.1), ("missing", missing))
    measure.run(report, problem_of(*subjects), SETTINGS)
    timed = {(r.subject, r.what) for r in report.rows if r.unit == "s" and r.value is not None}
    passes = ("forward", "backward", "forward+backward")
    assert timed == {(OURS, what) for what in passes}
    notes = {r.subject: r.note for r in report.rows if r.note}
    assert "WRONG" in notes["wrong"]
    assert "no such peer" in notes["missing"]
    assert report.failures == []
    assert [r.value for r in report.rows if r.what == measure.REPEATED] == [0]


def test_our_wrong_result_fails_the_run() -> None:
    report = Report("cuda squares", row_type=CudaRow, columns=COLUMNS)
    measure.run(report, problem_of(squares(OURS, float("nan"))), SETTINGS)
    assert [message.split(":")[0] for message in report.failures] == ["squares fp32"]
    assert all(r.unit != "s" for r in report.rows)


def test_errors_are_relative_to_the_largest_value() -> None:
    exact = {"y": torch.tensor([1.0, -4.0]), "zero": torch.zeros(2), "other": torch.ones(1)}
    found = {
        "y": torch.tensor([1.0, -3.0]),
        "zero": torch.tensor([0.0, 1e-3]),
        "other": torch.tensor([float("nan")]),
    }
    assert measure.errors_of(found, exact) == pytest.approx(
        {"y": 0.25, "zero": 1e-3, "other": float("inf")}
    )


def test_results_that_change_are_counted() -> None:
    count = iter(range(10))
    subject = in_place("counter", torch.zeros(2), lambda state: state + next(count))
    assert measure.unequal_repeats(subject) == 2


def test_turned_tensors() -> None:
    assert turn(torch.empty(2, 3, 5), True).shape == (2, 5, 3)
    assert turn(torch.empty(2, 3, 4, 5), True).shape == (2, 5, 3, 4)
    assert turn(torch.empty(3, 4), True).shape == (3, 4)
    assert turn(torch.empty(2, 3, 5), False).shape == (2, 3, 5)


def test_scan_in_float64_does_not_depend_on_the_sequences_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    leaves = scan.inputs(cases.Scan(3, 4, 5, 2), torch.float32, CPU)
    grad_y = torch.randn(3, 5, 4)
    together = scan.exact(leaves, grad_y)
    monkeypatch.setattr(scan, "EXACT_BYTES", 1)
    for name, value in scan.exact(leaves, grad_y).items():
        torch.testing.assert_close(value, together[name])


def test_tiny_sizes_are_right_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["tiny", "--device", "cpu", "--parts", "scan", "step"])
    assert tiny.main() == 0
    assert "0 faults" in capsys.readouterr().out


def test_the_smoke_test_says_what_it_is(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    arguments = ["--smoke", "--parts", "step", "conv", "--dtypes", "fp32", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "bench.cuda", *arguments],
        env={**os.environ, "PYTHONPATH": str(TOOLS)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("SMOKE TEST") == 2
    parts = json.loads(out.read_text())["parts"]
    assert parts.keys() == {"cuda step", "cuda conv"}
    machine = parts["cuda step"]["machine"]
    assert machine["smoke"]
    assert machine["device"].startswith("none")
    assert machine["command"].startswith("make bench-cuda")
