"""One case of an operator: its figures, alone and in turns with another implementation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .cases import Subject
from .report import OURS, Report
from .timing import Action, Times, alternate, backward, both, forward

ACTIONS: dict[str, Callable[[Subject], Action]] = {
    "forward": forward,
    "backward": backward,
    "forward+backward": both,
}
PASSES = ("forward", "forward+backward")  # what others are compared in


@dataclass(frozen=True)
class Comparison:
    """Where the figures of one case go.

    Attributes:
        case: its name in the rows.
        operations: of one pass, for the rate.
        bound_s: seconds at the limit of the machine for a key of ACTIONS; None: no bound is known.
        budget_s: seconds spent on one comparison.
    """

    report: Report
    case: str
    operations: int
    bound_s: Callable[[str], float] | None
    budget_s: float

    def add_ours(self, subject: Subject) -> None:
        """Measure the forward pass, the backward pass and both."""
        actions = {what: make(subject) for what, make in ACTIONS.items()}
        for what, times in alternate(actions, self.budget_s).items():
            self._add(what, subject.name, times)

    def add_other(self, ours: Subject, other: Subject, what: str, note: str = "") -> None:
        """Measure another implementation in turns with ours; one row, the other's."""
        actions = {subject.name: ACTIONS[what](subject) for subject in (ours, other)}
        times = alternate(actions, self.budget_s)
        ratio = times[other.name].median / times[OURS].median
        if len(times[other.name].seconds) == 1 and not note:
            note = "one run without warm-up"
        self._add(what, other.name, times[other.name], ratio, note)

    def _add(
        self, what: str, subject: str, times: Times, ratio: float | None = None, note: str = ""
    ) -> None:
        add_times(
            self.report,
            self.case,
            what,
            subject,
            times,
            rate=self.operations / times.median,
            of_limit=None if self.bound_s is None else self.bound_s(what) / times.median,
            ratio=ratio,
            note=note,
        )


def add_times(
    report: Report, case: str, what: str, subject: str, times: Times, **more: object
) -> None:
    """Add a row of one action's durations; `more` are further fields of `Row`."""
    runs = len(times.seconds)
    report.add(case, what, subject, times.median, best=times.best, runs=runs, **more)


def disagreement(ours: Subject, other: Subject, turned: bool = False) -> float:
    """Largest difference of y, relative to the largest y; `turned`: the other's y is (b, d, l)."""
    with torch.no_grad():
        expected, y = ours.call(), other.call()
    return relative_error(y.transpose(1, 2) if turned else y, expected)


def relative_error(value: Tensor, expected: Tensor) -> float:
    """Largest absolute difference divided by the largest expected value."""
    if value.shape != expected.shape:
        raise ValueError(f"shapes {tuple(value.shape)} and {tuple(expected.shape)} differ")
    value, expected = value.detach(), expected.detach()
    difference = (value.to(expected.dtype) - expected).abs().max()
    return float(difference / expected.abs().max())
