"""Part decode: what one step of a tower costs beside its products of matrices.

A tower of four layers, 256 wide, batch 1, without gradients, each step from the state of the one
before. The products of matrices of a step are noted and run again alone, with the same weights and
inputs; what the step takes longer is the overhead: everything else a step has to compute, and
Python. Both are timed in turns.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ssm_core import Tower, TowerConfig, build_mixer
from ssm_core.errors import UnknownNameError

from .compare import add_times, relative_error
from .contest import threads_as_words
from .options import Options
from .report import Report
from .timing import Action, Times, alternate
from .variants import thread_count

MIXERS = ("mamba", "mamba2", "s4d", "s4", "s5")
D_MODEL, LAYERS = 256, 4
STEPS_PER_RUN = 20
PRODUCTS = {
    F.linear,
    *(torch.matmul, torch.mm, torch.bmm, torch.mv, torch.addmm, torch.baddbmm, torch.einsum),
    *(Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__, Tensor.mm, Tensor.bmm, Tensor.mv),
}
STEP, ALONE, OVERHEAD = "step", "products alone", "overhead"
TOLERANCE = 1e-4


class Recorder(TorchFunctionMode):
    """Notes the products of matrices that are called, to run them again."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Callable[[], object]] = []

    def __torch_function__(
        self,
        function: Any,
        types: Any,
        arguments: tuple[Any, ...] = (),
        named: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(named or {})
        if function in PRODUCTS:
            self.calls.append(lambda: function(*arguments, **named))
        return function(*arguments, **named)


def run(report: Report, options: Options) -> None:
    d_model, layers = (32, 2) if options.smoke else (D_MODEL, LAYERS)
    for name in filter(options.wants, MIXERS):
        try:
            tower = Tower(partial(build_mixer, name, d_model), TowerConfig(d_model, layers))
        except UnknownNameError as missing:
            report.add(name, STEP, name, None, note=str(missing).splitlines()[0][:120])
            continue
        with torch.no_grad():
            error = agreement(tower)
            report.add(name, "error", name, error, unit="", runs=1, note=f"at most {TOLERANCE:g}")
            if not error <= TOLERANCE:
                report.fail(f"decode, {name}: steps differ from float64 by {error:.1e}")
            for count in sorted({1, torch.get_num_threads()}, reverse=True):
                with thread_count(count):
                    measure(report, options, f"{name}, {threads_as_words(count)}", tower)


def agreement(tower: Tower, l: int = 16) -> float:
    """The error of l steps in a row, relative to the whole sequence in float64."""
    x = torch.randn(1, l, tower.d_model)
    state, steps = tower.initial_state(1), []
    for x_t in x.unbind(1):
        y_t, state = tower.step(x_t, state)
        steps.append(y_t)
    found = torch.stack(steps, 1)
    return relative_error(found.double(), copy.deepcopy(tower).double()(x.double()))


def measure(report: Report, options: Options, case: str, tower: Tower) -> None:
    """Add the step, its products alone, and the difference of their medians."""
    products = recorded(tower)
    actions = {STEP: stepping(tower), ALONE: repeated(products)}
    times = {what: per_step(t) for what, t in alternate(actions, options.budget_s / 3, 50).items()}
    step, alone = times[STEP], times[ALONE]
    add_times(report, case, STEP, "tower", step)
    note = f"{len(products)} products"
    add_times(report, case, STEP, ALONE, alone, ratio=alone.median / step.median, note=note)
    report.add(case, OVERHEAD, "tower", step.median - alone.median, runs=len(step.seconds))


def recorded(tower: Tower) -> list[Callable[[], object]]:
    """The products of matrices of one step, which is not the first."""
    x_t = torch.randn(1, tower.d_model)
    _, state = tower.step(x_t, tower.initial_state(1))
    with Recorder() as recorder:
        tower.step(x_t, state)
    return recorder.calls


def stepping(tower: Tower) -> Action:
    """Seconds of `STEPS_PER_RUN` steps, each from the state of the one before."""
    x_t = torch.randn(1, tower.d_model)

    def run() -> float:
        state = tower.initial_state(1)
        start = time.perf_counter()
        for _ in range(STEPS_PER_RUN):
            _, state = tower.step(x_t, state)
        return time.perf_counter() - start

    return run


def repeated(calls: list[Callable[[], object]]) -> Action:
    def run() -> float:
        start = time.perf_counter()
        for _ in range(STEPS_PER_RUN):
            for call in calls:
                call()
        return time.perf_counter() - start

    return run


def per_step(times: Times) -> Times:
    return Times(tuple(seconds / STEPS_PER_RUN for seconds in times.seconds))
