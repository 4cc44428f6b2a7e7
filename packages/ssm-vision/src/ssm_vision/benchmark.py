"""Speed and memory of one model at one image size and batch size, in a process of its own.

A process of its own makes memory measurable on a CPU, and lets a case that needs more than there is
be a line of a table instead of the end of everything.
"""

from __future__ import annotations

import multiprocessing
import signal
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from ssm_core.errors import SsmError
from ssm_vision.models.registry import BASELINES
from ssm_vision.zoo import create_model

Mode = Literal["inference", "training"]
MODES: tuple[Mode, ...] = ("inference", "training")
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
OUT_OF_MEMORY = "out of memory"
#: calls before the timed ones: kernels are chosen, memory is reserved
WARM_UP = 2
LEAST_RUNS, MOST_RUNS = 3, 200
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Case:
    """What is measured."""

    model: str
    image_size: int
    batch_size: int
    mode: Mode


@dataclass(frozen=True)
class Conditions:
    """How it is measured.

    Attributes:
        device: "cpu", "cuda", "cuda:1".
        precision: of autocast; weights are float32.
        threads: of the CPU; None leaves torch's default.
        seconds: for the timed runs of one case; 3 runs are made in any case, 1 if a single one
            takes longer than that.
    """

    device: str = "cpu"
    precision: str = "float32"
    threads: int | None = None
    seconds: float = 3.0


@dataclass(frozen=True)
class Row:
    """What was found; empty where `note` says why there is nothing."""

    model: str
    image_size: int
    batch_size: int
    mode: str
    parameters: int | None = None
    runs: int | None = None
    latency_ms: float | None = None
    """median of the runs, for the whole batch"""
    fastest_ms: float | None = None
    images_per_s: float | None = None
    memory_mb: float | None = None
    """the most memory at a time, in 10^6 bytes; see `measure`"""
    note: str = ""


def measure_apart(case: Case, conditions: Conditions) -> Row:
    """`measure` in a new process; what goes wrong there is the row's note."""
    # forked from a server that has imported everything and run nothing: quick and clean
    methods = multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if "forkserver" in methods:
        context.set_forkserver_preload([__name__, "timm"])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sender, case, conditions))
    process.start()
    sender.close()
    try:
        row: Row = receiver.recv()
    except EOFError:
        process.join()
        killed = process.exitcode == -signal.SIGKILL
        reason = f"{OUT_OF_MEMORY}: ended by the system" if killed else "ended"
        row = _without_figures(case, f"{reason} (exit code {process.exitcode})")
    process.join()
    return row


def measure(case: Case, conditions: Conditions) -> Row:
    """Build a model for its image size and time it.

    Inference is a forward pass without gradients in evaluation mode; training is forward and
    backward with gradients of all parameters, without an optimizer. The figures are medians over
    runs after a warm-up, each waited for. Memory on CUDA is the most that tensors had at a time
    (weights, inputs, activations); on a CPU, how much the process grew, from before the model was
    built to the most it had during the runs: that includes the work space of libraries.

    Raises:
        SsmError: an unknown model, or one that cannot have this image size.
    """
    if conditions.threads is not None:
        torch.set_num_threads(conditions.threads)
    if is_baseline(case.model):
        import timm  # noqa: F401  its code is not the model's memory
    device = torch.device(conditions.device)
    memory = _CudaMemory(device) if device.type == "cuda" else _ProcessMemory()
    model = create_model(case.model, img_size=case.image_size).to(device)
    step = _step(model, case, conditions)
    memory.begin_runs()
    seconds = _times(step, device, conditions.seconds)
    median = statistics.median(seconds)
    peak = memory.peak()
    return Row(
        case.model,
        case.image_size,
        case.batch_size,
        case.mode,
        parameters=sum(p.numel() for p in model.parameters()),
        runs=len(seconds),
        latency_ms=median * 1e3,
        fastest_ms=min(seconds) * 1e3,
        images_per_s=case.batch_size / median,
        memory_mb=None if peak is None else peak / 1e6,
    )


def is_baseline(model: str) -> bool:
    """Whether a name is one to compare with."""
    return any(model in names for names in BASELINES.values())


def _child(sender: Connection, case: Case, conditions: Conditions) -> None:
    try:
        row = measure(case, conditions)
    except (MemoryError, RuntimeError, AssertionError, SsmError, ValueError) as error:
        text = " ".join(str(error).split())
        row = _without_figures(case, OUT_OF_MEMORY if _is_memory(error) else text[:200])
    sender.send(row)
    sender.close()


def _without_figures(case: Case, note: str) -> Row:
    return Row(case.model, case.image_size, case.batch_size, case.mode, note=note)


def _is_memory(error: Exception) -> bool:
    """Whether memory ran out: CUDA has an error of its own, the CPU's allocator only words."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return "DefaultCPUAllocator" in str(error) or "not enough memory" in str(error)


def _step(model: nn.Module, case: Case, conditions: Conditions) -> Callable[[], object]:
    device = torch.device(conditions.device)
    info = getattr(model, "info", None)
    channels = info.input_shape[0] if info is not None else 3
    images = torch.randn(case.batch_size, channels, case.image_size, case.image_size, device=device)

    def precision() -> AbstractContextManager[object]:
        dtype = PRECISIONS[conditions.precision]
        return nullcontext() if dtype is None else torch.autocast(device.type, dtype)

    def inference() -> None:
        with torch.inference_mode(), precision():
            model(images)

    def training() -> None:
        model.zero_grad(set_to_none=True)
        with precision():
            loss = model(images).float().square().mean()
        loss.backward()

    model.train(case.mode == "training")
    return training if case.mode == "training" else inference


def _times(step: Callable[[], object], device: torch.device, budget_s: float) -> list[float]:
    """Seconds of the runs; on CUDA each is waited for."""

    def timed() -> float:
        start = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    first = timed()
    if first > budget_s:
        return [timed()]
    for _ in range(WARM_UP - 1):
        timed()
    seconds: list[float] = []
    while len(seconds) < LEAST_RUNS or (sum(seconds) < budget_s and len(seconds) < MOST_RUNS):
        seconds.append(timed())
    return seconds


class _CudaMemory:
    def __init__(self, device: torch.device) -> None:
        self.device = device

    def begin_runs(self) -> None:
        torch.cuda.reset_peak_memory_stats(self.device)

    def peak(self) -> int | None:
        return torch.cuda.max_memory_allocated(self.device)


class _ProcessMemory:
    """Growth of this process; None where the system does not say it."""

    def __init__(self) -> None:
        self.before = _resident("VmRSS")

    def begin_runs(self) -> None:
        # the construction's own peak does not count, where the record can be reset (Linux)
        if _CLEAR.exists():
            _CLEAR.write_text("5")

    def peak(self) -> int | None:
        after = _resident("VmHWM")
        return None if after is None or self.before is None else max(after - self.before, 0)


def _resident(field: str) -> int | None:
    """Resident bytes now (VmRSS) or at most (VmHWM); elsewhere than on Linux at most, both."""
    if _STATUS.exists():
        lines = _STATUS.read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
    if sys.platform == "win32":
        return None
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
