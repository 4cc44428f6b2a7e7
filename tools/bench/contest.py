"""One computation by several implementations: checked against float64, then timed in turns.

An implementation whose result is wrong is not timed. Where it is ours, the run fails.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .cases import Subject
from .compare import ACTIONS, PASSES, Comparison, relative_error
from .options import Options
from .report import OURS, Report
from .variants import thread_count

Tensors = tuple[Tensor, ...]
Call = Callable[..., Tensor]
WIDE = {torch.float32: torch.float64, torch.complex64: torch.complex128}


@dataclass(frozen=True)
class Entry:
    """One implementation.

    Attributes:
        name: as printed; OURS for this project's.
        load: imports what it needs and returns the function of the inputs; ImportError says what
            is missing.
        compiled: it compiles at the first call for a shape, which takes up to a minute.
    """

    name: str
    load: Callable[[], Call]
    compiled: bool = False


@dataclass(frozen=True)
class Contest:
    """What is computed, and by whom.

    Attributes:
        case: name of the rows.
        size: the sizes of the inputs, in words.
        entries: the first is ours.
        exact: the same function, slow and right; it is given the inputs in float64.
        inputs: what is timed; gradients of those that require them.
        few: inputs for the comparison with float64, as long but with fewer channels or sequences.
        operations: of one forward pass, for the rate.
        tolerance: largest error of a result, relative to its largest value.
    """

    case: str
    size: str
    entries: tuple[Entry, ...]
    exact: Call
    inputs: Tensors
    few: Tensors
    operations: int
    tolerance: float


def run(report: Report, contest: Contest, options: Options) -> None:
    """Check every entry, then time the right ones with all threads and with one."""
    calls = right_ones(report, contest, options)
    if OURS not in calls:
        return
    for count in sorted({1, torch.get_num_threads()}, reverse=True):
        with thread_count(count):
            _time(report, contest, calls, options, f"{contest.case}, {threads_as_words(count)}")


def threads_as_words(count: int) -> str:
    return f"{count} thread" + ("s" if count > 1 else "")


def in_words(size: NamedTuple) -> str:
    """As "b = 16, l = 4096"."""
    return ", ".join(f"{name} = {value}" for name, value in size._asdict().items())


def right_ones(report: Report, contest: Contest, options: Options) -> dict[str, Call]:
    """The functions of the entries that are there and whose results are right, by name."""
    expected = results(contest.exact, doubled(contest.few))
    calls = {}
    for entry in contest.entries:
        if entry.name != OURS and not options.wants(entry.name):
            continue
        if options.smoke and entry.compiled:
            note = "compiling takes too long for a smoke test"
            report.add(contest.case, "forward", entry.name, None, note=note)
            continue
        try:
            call = entry.load()
            error = largest_error(results(call, contest.few), expected)
        except Exception as failure:  # a peer's failure is a result, of whatever kind
            note = f"{type(failure).__name__}: {failure}".splitlines()[0][:120]
            report.add(contest.case, "forward", entry.name, None, note=note)
            if entry.name == OURS:
                report.fail(f"{contest.case}: {note}")
            continue
        right = error <= contest.tolerance
        note = f"{contest.size}; y or a gradient; at most {contest.tolerance:g}"
        note += "" if right else "; WRONG, not timed"
        report.add(contest.case, "error", entry.name, error, unit="", runs=1, note=note)
        if right:
            calls[entry.name] = call
        elif entry.name == OURS:
            report.fail(f"{contest.case}: the error is {error:.1e}")
    return calls


def results(call: Call, inputs: Tensors) -> Tensors:
    """y and the gradients; that of y is the same numbers for any precision."""
    y = call(*inputs)
    grad_y = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).cos().view(y.shape).to(y.dtype)
    return (y.detach(), *torch.autograd.grad(y, leaves_of(inputs), grad_y))


def leaves_of(inputs: Tensors) -> Tensors:
    return tuple(x for x in inputs if x.requires_grad)


def doubled(inputs: Tensors) -> Tensors:
    return tuple(
        x.detach().to(WIDE.get(x.dtype, x.dtype)).requires_grad_(x.requires_grad) for x in inputs
    )


def largest_error(found: Tensors, expected: Tensors) -> float:
    """The largest relative error of any result; infinite if one is NaN."""
    errors = [relative_error(value, exact) for value, exact in zip(found, expected, strict=True)]
    return max(math.inf if math.isnan(error) else error for error in errors)


def subject(name: str, call: Call, inputs: Tensors) -> Subject:
    """An implementation on these inputs, ready to run."""
    with torch.no_grad():
        grad_y = torch.randn_like(call(*inputs))
    return Subject(name, lambda: call(*inputs), leaves_of(inputs), grad_y)


def _time(
    report: Report, contest: Contest, calls: dict[str, Call], options: Options, case: str
) -> None:
    comparison = Comparison(report, case, contest.operations, None, options.budget_s / 2)
    compiled = {entry.name for entry in contest.entries if entry.compiled}
    ours = subject(OURS, calls[OURS], contest.inputs)
    comparison.add_ours(ours)
    for name in (name for name in calls if name != OURS):
        torch._dynamo.reset()  # otherwise earlier calls count against the limit of recompilations
        start = time.perf_counter()
        other = subject(name, calls[name], contest.inputs)
        note = ""
        if name in compiled:
            ACTIONS["forward+backward"](other)()
            note = f"compiled in {time.perf_counter() - start:.0f} s"
        for what in PASSES:
            comparison.add_other(ours, other, what, note)
