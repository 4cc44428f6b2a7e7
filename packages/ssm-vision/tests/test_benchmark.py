"""Speed and memory of one model, here and in a process of its own."""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from toy_model import PRESETS, Toy

from ssm_vision import benchmark, zoo
from ssm_vision.benchmark import Case, Conditions, Row
from ssm_vision.models.registry import FAMILIES

QUICK = Conditions(seconds=0.01)


@pytest.fixture(autouse=True)
def _toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "FAMILIES", {**FAMILIES, "toy": PRESETS})
    monkeypatch.setattr(zoo, "_family_of", zoo._family_of.__wrapped__)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("mode", benchmark.MODES)
def test_a_case(mode: benchmark.Mode, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bool, bool, tuple[int, ...]]] = []
    forward = Toy.forward

    def watched(self: Toy, images: torch.Tensor) -> torch.Tensor:
        y = forward(self, images)
        seen.append((self.training, y.requires_grad, tuple(images.shape)))
        assert y.dtype is benchmark.PRECISIONS[precision] or precision == "float32"
        return y

    monkeypatch.setattr(Toy, "forward", watched)
    row = benchmark.measure(
        Case("toy_small", 24, 2, mode), Conditions("cpu", precision, None, 0.01)
    )
    training = mode == "training"
    assert set(seen) == {(training, training, (2, 3, 24, 24))}
    assert row.runs is not None
    assert len(seen) == row.runs + benchmark.WARM_UP or row.runs == 1
    assert row.parameters == sum(
        p.numel() for p in zoo.create_model("toy_small", img_size=24).parameters()
    )
    assert row.fastest_ms <= row.latency_ms
    assert row.images_per_s == pytest.approx(2 / row.latency_ms * 1e3)
    assert row.note == ""


def test_number_of_runs() -> None:
    calls: list[int] = []
    seconds = benchmark._times(lambda: calls.append(1), torch.device("cpu"), 1e-9)
    assert (len(seconds), len(calls)) == (1, 2)  # one call alone is beyond the budget
    calls.clear()
    seconds = benchmark._times(lambda: calls.append(1), torch.device("cpu"), 10.0)
    assert len(seconds) == benchmark.MOST_RUNS
    assert len(calls) == benchmark.MOST_RUNS + benchmark.WARM_UP


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux alone says it")
def test_memory_of_the_process() -> None:
    memory = benchmark._ProcessMemory()
    memory.begin_runs()
    held = torch.ones(40_000_000, dtype=torch.uint8)
    del held
    peak = memory.peak()
    assert peak is not None
    assert peak > 30_000_000  # the most, although it is given back


def child(case: Case) -> Row:
    receiver, sender = multiprocessing.Pipe(duplex=False)
    benchmark._child(sender, case, QUICK)
    row: Row = receiver.recv()
    return row


def test_more_memory_than_there_is() -> None:
    row = child(Case("toy_small", 16, 10**11, "inference"))
    assert (row.note, row.images_per_s, row.batch_size) == ("out of memory", None, 10**11)
    assert benchmark._is_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert benchmark._is_memory(MemoryError())
    assert not benchmark._is_memory(RuntimeError("shapes do not fit"))


@pytest.mark.parametrize(
    ("case", "note"),
    [
        (Case("toy_small", 4, 1, "inference"), "images have 4 x 4 pixels, expected at least 8"),
        (Case("absent", 16, 1, "inference"), "unknown model 'absent'"),
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
    row = benchmark.measure_apart(Case("toy_small", 16, 2, "inference"), QUICK)
    assert re.match(note, row.note)
    assert (row.model, row.images_per_s) == ("toy_small", None)
