"""Single figures out of the rows of all parts: what a target is compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from .report import OURS

Row = dict[str, Any]


class Figure(NamedTuple):
    """The worst value over the cases that ran, and where that was."""

    value: float
    where: str


#: rows of all parts -> the figure, None where no case ran
Finder = Callable[[list[Row]], Figure | None]


def ran(rows: Iterable[Row], part: str, **equal: str) -> list[Row]:
    """The rows of a part that have a value and these fields."""
    return [
        row
        for row in rows
        if row["part"] == part
        and row["value"] is not None
        and all(row[key] == value for key, value in equal.items())
    ]


def worst(found: list[tuple[float, str]], at_most: bool = False) -> Figure | None:
    if not found:
        return None
    value, where = max(found) if at_most else min(found)
    return Figure(value, f"{where}, {len(found)} cases" if len(found) > 1 else where)


def rate(part: str, what: str, case: str = "") -> Finder:
    """The least rate of ours, in G/s, over cases that contain `case`."""

    def find(rows: list[Row]) -> Figure | None:
        found = ran(rows, part, what=what, subject=OURS)
        return worst([(row["rate"] / 1e9, row["case"]) for row in found if case in row["case"]])

    return find


def of_limit(part: str, what: str, shapes: str | tuple[str, ...]) -> Finder:
    """The least part of the machine's limit over shapes, given as letters or names."""

    def find(rows: list[Row]) -> Figure | None:
        found = ran(rows, part, what=what, subject=OURS)
        return worst([(row["of_limit"], row["case"]) for row in found if row["case"] in shapes])

    return find


def ratio(part: str, what: str, subjects: tuple[str, ...], shapes: str | tuple[str, ...]) -> Finder:
    """The least ratio of any of the subjects to ours over shapes, given as letters or names."""

    def find(rows: list[Row]) -> Figure | None:
        return worst(
            [
                (row["ratio"], f"{row['case']} {row['subject']}")
                for row in ran(rows, part, what=what)
                if row["subject"] in subjects and row["case"] in shapes and row["ratio"]
            ]
        )

    return find


def least_ratio(part: str, what: str, subjects: tuple[str, ...], case: str) -> Finder:
    """The least ratio of any of the subjects to ours over cases that contain `case`."""

    def find(rows: list[Row]) -> Figure | None:
        return worst(
            [
                (row["ratio"], f"{row['case']} {row['subject']}")
                for row in ran(rows, part, what=what)
                if row["subject"] in subjects and case in row["case"] and row["ratio"]
            ]
        )

    return find


def largest(part: str, what: str, factor: float) -> Finder:
    """The largest value, multiplied by `factor`."""

    def find(rows: list[Row]) -> Figure | None:
        found = [(factor * row["value"], row["case"]) for row in ran(rows, part, what=what)]
        return worst(found, at_most=True)

    return find


def step(case: str, other: str) -> Finder:
    """Our step divided by that of another model."""

    def find(rows: list[Row]) -> Figure | None:
        found = [row for row in ran(rows, "models", subject=other) if case in row["case"]]
        return worst([(1 / row["ratio"], row["case"]) for row in found], at_most=True)

    return find


def latency(other: str) -> Finder:
    """Our inference divided by that of the model beside it."""

    def find(rows: list[Row]) -> Figure | None:
        found = ran(rows, "latency", subject=other)
        return worst([(1 / row["ratio"], row["case"]) for row in found], at_most=True)

    return find


def error(what: str, slow_poles: bool) -> Finder:
    """The largest error of ours."""

    def find(rows: list[Row]) -> Figure | None:
        found = [row for row in ran(rows, "accuracy", subject=OURS) if what in row["what"]]
        return worst(
            [
                (row["value"], f"{row['what'].removeprefix('error of ')} {row['case']}")
                for row in found
                if ("slow poles" in row["case"]) == slow_poles
            ],
            at_most=True,
        )

    return find


def text_step(contexts: tuple[int, ...]) -> Finder:
    """Our step divided by that of the Transformer of the same recipe, at these contexts."""
    cases = tuple(f" x {context} characters" for context in contexts)

    def find(rows: list[Row]) -> Figure | None:
        found = ran(rows, "language", what="step", subject="shakespeare-transformer")
        ratios = [(1 / row["ratio"], row["case"]) for row in found if row["case"].endswith(cases)]
        return worst(ratios, at_most=True)

    return find
