"""Speed and memory of one model, here and in a process of its own."""

from __future__ import annotations

import mmap
import multiprocessing
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from toy_benchmarks import LINES, SQUARES, Toy

from ssm_core.bench import measure as bench
from ssm_core.bench.cases import MODES, PRECISIONS, Case, Conditions, Mode, Row
from ssm_core.bench.memory import ProcessMemory, is_memory_error

QUICK = Conditions(seconds=0.01)

pytestmark = pytest.mark.usefixtures("host")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("mode", MODES)
def test_a_case(mode: Mode, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bool, bool, tuple[int, ...]]] = []
    forward = Toy.forward

    def watched(self: Toy, x: torch.Tensor) -> torch.Tensor:
        y = forward(self, x)
        seen.append((self.training, y.requires_grad, tuple(x.shape)))
        assert y.dtype is PRECISIONS[precision] or precision == "float32"
        return y

    monkeypatch.setattr(Toy, "forward", watched)
    case = Case("squares", "toy_square", 24, 2, mode)
    row = bench.measure(case, Conditions("cpu", precision, None, 0.01), SQUARES)
    training = mode == "training"
    assert set(seen) == {(training, training, (2, 24, 24))}
    assert row.runs is not None
    assert len(seen) == row.runs + bench.WARM_UP or row.runs == 1
    assert row.parameters == 24 * 5 + 5
    assert row.fastest_ms <= row.latency_ms
    assert row.per_s == pytest.approx(2 / row.latency_ms * 1e3)
    assert row.note == ""


def test_what_is_counted_is_the_kinds_own() -> None:
    row = bench.measure(Case("lines", "toy_line", 64, 3, "inference"), QUICK, LINES)
    assert row.per_s == pytest.approx(3 * 64 / row.latency_ms * 1e3)


def test_number_of_runs() -> None:
    calls: list[int] = []
    seconds = bench._times(lambda: calls.append(1), torch.device("cpu"), 1e-9)
    assert (len(seconds), len(calls)) == (1, 2)  # one call alone is beyond the budget
    calls.clear()
    seconds = bench._times(lambda: calls.append(1), torch.device("cpu"), 10.0)
    assert len(seconds) == bench.MOST_RUNS
    assert len(calls) == bench.MOST_RUNS + bench.WARM_UP


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux alone says it")
def test_memory_of_the_process() -> None:
    memory = ProcessMemory()
    memory.begin_runs()
    with mmap.mmap(-1, 40_000_000) as held:  # an allocator may have as much left of earlier tests
        held.write(b"1" * len(held))
    peak = memory.peak()
    assert peak is not None
    assert peak > 30_000_000  # the most, although it is given back


def child(case: Case) -> Row:
    receiver, sender = multiprocessing.Pipe(duplex=False)
    bench._child(sender, case, QUICK)
    row: Row = receiver.recv()
    return row


def test_more_memory_than_there_is() -> None:
    row = child(Case("squares", "toy_square", 16, 10**11, "inference"))
    assert (row.note, row.per_s, row.batch_size) == ("out of memory", None, 10**11)
    assert is_memory_error(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_memory_error(MemoryError())
    assert not is_memory_error(RuntimeError("shapes do not fit"))


@pytest.mark.parametrize(
    ("case", "note"),
    [
        (Case("squares", "toy_square", 4, 1, "inference"), "size is 4, expected at least 8"),
        (Case("circles", "toy_round", 16, 1, "inference"), "unknown benchmark 'circles'"),
    ],
)
def test_a_case_that_cannot_be(case: Case, note: str) -> None:
    assert note in child(case).note


class Ended:
    """A process that ended before it could say anything."""

    exitcode = 0

    def __init__(self, target: Callable[..., None], args: tuple[object, ...]) -> None:
        self.sender = args[0]

    def start(self) -> None:
        self.sender.close()  # type: ignore[attr-defined]

    def join(self) -> None:
        pass


@pytest.mark.parametrize(
    ("code", "note"), [(-9, "out of memory: ended by the system"), (1, r"ended \(exit code 1\)")]
)
def test_a_process_that_is_killed(monkeypatch: pytest.MonkeyPatch, code: int, note: str) -> None:
    context = multiprocessing.get_context("spawn")
    monkeypatch.setattr(type(context), "Process", Ended)
    monkeypatch.setattr(Ended, "exitcode", code)
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    row = bench.measure_apart(Case("squares", "toy_square", 16, 2, "inference"), QUICK)
    assert re.match(note, row.note)
    assert (row.model, row.per_s) == ("toy_square", None)
