"""One case: every subject is checked against float64, then they are timed in turns."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..compare import add_times, relative_error
from ..report import OURS, Report
from ..timing import Times, alternate
from . import floors
from .clock import Clock
from .floors import Rates
from .subject import Problem, Results, Subject

REPEATS = 3  # runs that have to have the same bits
REPEATED = "unequal repeats"
ERROR = "error"


@dataclass(frozen=True)
class Settings:
    """How long to measure.

    Attributes:
        rounds: runs of each subject, or three times that; the figure is their median.
        budget_s: seconds for the comparison of one pass with subjects that are known to be slow,
            which then have fewer runs.
    """

    clock: Clock
    rates: Rates
    rounds: int = 50
    budget_s: float = 5.0


def run(report: Report, problem: Problem, settings: Settings) -> None:
    """Add the rows of all subjects that are there and right."""
    try:
        subjects = right_ones(report, problem)
    except ImportError as missing:  # of ours: the operator itself
        return report.add(problem.name, "forward", OURS, None, note=f"not run: {missing}")
    if subjects and subjects[0].name == OURS:
        unequal = unequal_repeats(subjects[0])
        report.add(problem.name, REPEATED, OURS, unequal, unit="", runs=REPEATS)
    for what in problem.passes:
        time_pass(report, problem, subjects, what, settings)
    return None


def right_ones(report: Report, problem: Problem) -> list[Subject]:
    """The subjects that are there and whose results are right."""
    expected = problem.exact()
    subjects = []
    for name, make in problem.subjects.items():
        try:
            subject = make()
            error = check(report, problem, subject, expected)
        except Exception as failure:  # a peer's failure is a result, of whatever kind
            why = f"{type(failure).__name__}: {failure}".splitlines()[0][:120]
            report.add(problem.name, "forward", name, None, note=f"not run: {why}")
            if name == OURS:
                report.fail(f"{name}, {problem.name}: {why}")
            continue
        if error <= problem.tolerance:
            subjects.append(subject)
    return subjects


def check(report: Report, problem: Problem, subject: Subject, expected: Results) -> float:
    """Add the largest error; a wrong result is a failure of the run only where it is ours."""
    errors = errors_of(subject.results(), expected)
    where = max(errors, key=lambda name: errors[name])
    right = errors[where] <= problem.tolerance
    note = f"{where}, of the largest value; at most {problem.tolerance:g}"
    more = "" if right else "; WRONG, not timed"
    report.add(problem.name, ERROR, subject.name, errors[where], unit="", runs=1, note=note + more)
    if not right and subject.name == OURS:
        report.fail(f"{problem.name}: error of {where} is {errors[where]:.1e}")
    return errors[where]


def errors_of(found: Results, expected: Results) -> dict[str, float]:
    """Largest error of each result relative to its largest value, or to 1 where all is 0; NaN
    counts as infinite."""
    errors = {}
    for name, exact in expected.items():
        value = found[name]
        error = relative_error(value, exact) if exact.any() else float(value.abs().max())
        errors[name] = math.inf if math.isnan(error) else error
    return errors


def unequal_repeats(subject: Subject) -> int:
    """How many results of three runs have other bits than those of the first."""
    first = subject.results()
    count = 0
    for _ in range(REPEATS - 1):
        again = subject.results()
        count += sum(not same_bits(again[name], value) for name, value in first.items())
    return count


def same_bits(one: Tensor, other: Tensor) -> bool:
    one, other = (x.detach().flatten().view(torch.uint8) for x in (one, other))
    return torch.equal(one, other)


def time_pass(
    report: Report, problem: Problem, subjects: list[Subject], what: str, settings: Settings
) -> None:
    """Quick subjects together, each slow one with ours."""
    quick = [subject for subject in subjects if not subject.slow]
    ours = [subject for subject in quick if subject.name == OURS]
    times = _timed(quick, what, settings, math.inf)
    _add(report, problem, quick, what, times, settings)
    for slow in (subject for subject in subjects if subject.slow):
        times = _timed([*ours, slow], what, settings, settings.budget_s)
        _add(report, problem, [slow], what, times, settings)


def _timed(
    subjects: list[Subject], what: str, settings: Settings, budget_s: float
) -> dict[str, Times]:
    def action(subject: Subject) -> Callable[[], float]:
        return lambda: settings.clock.seconds(subject.prepare(what))

    return alternate({s.name: action(s) for s in subjects}, budget_s, settings.rounds)


def _add(
    report: Report,
    problem: Problem,
    subjects: list[Subject],
    what: str,
    times: dict[str, Times],
    settings: Settings,
) -> None:
    floor = floors.floor_s(problem.works, what, settings.rates)
    for subject in subjects:
        median = times[subject.name].median
        ratio = None
        if subject.name != OURS and OURS in times:
            ratio = median / times[OURS].median
        add_times(
            report,
            problem.name,
            what,
            subject.name,
            times[subject.name],
            rate=problem.steps / median,
            of_limit=floor / median,
            ratio=ratio,
            moved_bytes=floors.moved_bytes(problem.works, what),
            peak_bytes=settings.clock.peak_bytes(subject.prepare(what)),
        )
