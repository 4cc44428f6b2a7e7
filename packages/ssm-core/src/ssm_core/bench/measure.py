"""Speed and memory of one model at one size of input and batch size, in a process of its own.

A process of its own makes memory measurable on a CPU, and lets a case that needs more than there is
be a line of a table instead of the end of everything.
"""

from __future__ import annotations

import importlib
import multiprocessing
import signal
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import nn

from ssm_core.bench.cases import OUT_OF_MEMORY, PRECISIONS, Case, Conditions, Row
from ssm_core.bench.memory import is_memory_error, memory_of
from ssm_core.errors import SsmError
from ssm_core.plugins import plugin_host
from ssm_core.specs import BenchmarkSpec

#: calls before the timed ones: kernels are chosen, memory is reserved
WARM_UP = 2
LEAST_RUNS, MOST_RUNS = 3, 200


def measure_apart(case: Case, conditions: Conditions, preload: tuple[str, ...] = ()) -> Row:
    """`measure` in a new process; what goes wrong there is the row's note.

    Args:
        preload: modules that the new process has imported before anything is measured.
    """
    # forked from a server that has imported everything and run nothing: quick and clean
    methods = multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if "forkserver" in methods:
        context.set_forkserver_preload([__name__, *preload])
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


def measure(case: Case, conditions: Conditions, spec: BenchmarkSpec) -> Row:
    """Build a model for its size of input and time it.

    Inference is a forward pass without gradients in evaluation mode; training is forward and
    backward with gradients of all parameters, without an optimizer. The figures are medians over
    runs after a warm-up, each waited for. Memory on CUDA is the most that tensors had at a time
    (weights, inputs, activations); on a CPU, how much the process grew, from before the model was
    built to the most it had during the runs: that includes the work space of libraries.

    Raises:
        SsmError: an unknown model, or one that cannot have this size.
    """
    if conditions.threads is not None:
        torch.set_num_threads(conditions.threads)
    for name in spec.preload:  # code is not the model's memory
        importlib.import_module(name)
    device = torch.device(conditions.device)
    memory = memory_of(device)
    model = spec.build(case.model, case.size).to(device)
    step = _step(model, case, conditions, spec)
    memory.begin_runs()
    seconds = _times(step, device, conditions.seconds)
    median = statistics.median(seconds)
    peak = memory.peak()
    return Row(
        case.model,
        case.size,
        case.batch_size,
        case.mode,
        parameters=sum(p.numel() for p in model.parameters()),
        runs=len(seconds),
        latency_ms=median * 1e3,
        fastest_ms=min(seconds) * 1e3,
        per_s=spec.count(case.batch_size, case.size) / median,
        memory_mb=None if peak is None else peak / 1e6,
    )


def _child(sender: Connection, case: Case, conditions: Conditions) -> None:
    try:
        row = measure(case, conditions, plugin_host().get("benchmarks", case.kind))
    except (MemoryError, RuntimeError, AssertionError, SsmError, ValueError) as error:
        text = " ".join(str(error).split())
        row = _without_figures(case, OUT_OF_MEMORY if is_memory_error(error) else text[:200])
    sender.send(row)
    sender.close()


def _without_figures(case: Case, note: str) -> Row:
    return Row(case.model, case.size, case.batch_size, case.mode, note=note)


def _step(
    model: nn.Module, case: Case, conditions: Conditions, spec: BenchmarkSpec
) -> Callable[[], object]:
    device = torch.device(conditions.device)
    inputs = spec.inputs(model, case.batch_size, case.size).to(device)

    def precision() -> AbstractContextManager[object]:
        dtype = PRECISIONS[conditions.precision]
        return nullcontext() if dtype is None else torch.autocast(device.type, dtype)

    def inference() -> None:
        with torch.inference_mode(), precision():
            model(inputs)

    def training() -> None:
        model.zero_grad(set_to_none=True)
        with precision():
            loss = spec.loss(model(inputs), inputs)
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
