"""Durations: alternating repeats of several actions, and whether a slow one is worth starting."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from .cases import Subject

#: Runs once and returns the seconds of what counts.
Action = Callable[[], float]


@dataclass(frozen=True)
class Times:
    """Seconds of the runs of one action."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def best(self) -> float:
        return min(self.seconds)


def forward(subject: Subject) -> Action:
    """Time of the forward pass without a graph."""

    def run() -> float:
        with torch.no_grad():
            start = time.perf_counter()
            subject.call()
            return time.perf_counter() - start

    return run


def both(subject: Subject) -> Action:
    """Time of the forward pass with a graph and of all gradients."""

    def run() -> float:
        start = time.perf_counter()
        torch.autograd.grad(subject.call(), subject.leaves, subject.grad_y)
        return time.perf_counter() - start

    return run


def backward(subject: Subject) -> Action:
    """Time of all gradients alone."""

    def run() -> float:
        y = subject.call()
        start = time.perf_counter()
        torch.autograd.grad(y, subject.leaves, subject.grad_y)
        return time.perf_counter() - start

    return run


def alternate(
    actions: Mapping[str, Action], budget_s: float, most_rounds: int = 15
) -> dict[str, Times]:
    """Run the actions in turn until the budget is spent; at least once, at most `most_rounds`.

    The first run of each is a warm-up that does not count, unless it took a third of the budget
    already: then it is the only one of that action. In each round quick actions run three times.
    """
    first = {name: action() for name, action in actions.items()}
    found = {name: [s] if s > budget_s / 3 else [] for name, s in first.items()}
    repeated = [name for name in actions if not found[name]]
    slowest = max((first[name] for name in repeated), default=0.0)
    start = time.perf_counter()
    for _ in range(most_rounds if repeated else 0):
        for name in repeated:
            repeats = 3 if first[name] * 10 < slowest else 1
            found[name].extend(actions[name]() for _ in range(repeats))
        if time.perf_counter() - start > budget_s:
            break
    return {name: Times(tuple(seconds)) for name, seconds in found.items()}


def at_least(seconds_at: Callable[[int], float], length: int, limit_s: float) -> float | None:
    """A lower bound of `seconds_at(length)` where that is above the limit, otherwise None.

    Tries short lengths first. What takes too long although it were linear in the length is not
    started; what stays below the limit although it were quadratic is not tried further.
    """
    for part in (16, 8, 4, 2):
        seconds = seconds_at(max(length // part, 1))
        if seconds * part > limit_s:
            return seconds * part
        if seconds * part**2 <= limit_s:
            return None
    return None
