"""Sizes read from shapes: a layout names the axes of each tensor, the tensors give them numbers.

    {"x_proj.weight": "R+2n, E", "dt_proj.weight": "E, R", "A_log": "E, n"}

An axis is a number, a size or a sum of multiples of sizes. Sizes are found one after another, from
every axis in which only one is unknown; then all axes are compared.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import TypeAlias

from ssm_core.errors import CheckpointError
from ssm_core.official.tensors import Tensors, listed

Layout: TypeAlias = Mapping[str, str]
"""Name of a tensor -> its axes, separated by commas; "" is a tensor without axes."""
Sizes: TypeAlias = dict[str, int]

_TERM = re.compile(r"(\d*)([A-Za-z_]*)")


def fit(owner: str, tensors: Tensors, layout: Layout, hint: str = "") -> Sizes:
    """Return the sizes that the tensors of a layout have.

    Args:
        hint: what to do, at the end of an error.
    Raises:
        CheckpointError: tensors are missing, left over, or have shapes that do not fit together.
            One line with all of them.
    """
    missing = [name for name in layout if name not in tensors]
    unexpected = [name for name in tensors if name not in layout]
    sizes = _solve(tensors, layout)
    present = [name for name in layout if name in tensors]
    wrong = [name for name in present if not _fits(tensors, name, layout, sizes)]
    if not (missing or unexpected or wrong):  # a size that no tensor gives
        wrong = [name for name in present if None in _values(layout[name], sizes)]
    problems = [f"missing {listed(missing)}"] if missing else []
    problems += [f"unexpected {listed(unexpected)}"] if unexpected else []
    problems += [_shapes(tensors, wrong, layout, sizes)] if wrong else []
    if problems:
        raise CheckpointError(f"{owner}: the state dict does not fit: {'; '.join(problems)}{hint}")
    return sizes


def _solve(tensors: Tensors, layout: Layout) -> Sizes:
    """Find every size that some axis decides; where axes disagree, the most common value."""
    sizes: Sizes = {}
    axes_seen = [
        (_terms(axis), length)
        for name, axes in layout.items()
        if name in tensors and tensors[name].dim() == len(_axes_of(axes))
        for axis, length in zip(_axes_of(axes), tensors[name].shape, strict=True)
    ]
    while True:
        votes: dict[str, Counter[int]] = {}
        for terms, length in axes_seen:
            unknown = [(factor, size) for factor, size in terms if size and size not in sizes]
            rest = length - sum(
                factor * (sizes.get(size, 0) if size else 1) for factor, size in terms
            )
            if len(unknown) == 1 and rest >= 0 and rest % unknown[0][0] == 0:
                factor, size = unknown[0]
                votes.setdefault(size, Counter())[rest // factor] += 1
        if not votes:
            return sizes
        sizes |= {size: counter.most_common(1)[0][0] for size, counter in votes.items()}


def _axes_of(axes: str) -> list[str]:
    return axes.split(", ") if axes else []


def _terms(axis: str) -> list[tuple[int, str]]:
    """The terms (factor, size) of a sum; a number is (number, "")."""
    matches = (_TERM.fullmatch(term) for term in axis.split("+"))
    return [(int(m[1] or 1), m[2]) for m in matches if m is not None]


def _values(axes: str, sizes: Sizes) -> list[int | None]:
    """What the axes are in numbers, None where a size is not known."""
    sums = [_terms(axis) for axis in _axes_of(axes)]
    return [
        sum(factor * (sizes[size] if size else 1) for factor, size in terms)
        if all(size in sizes for _, size in terms if size)
        else None
        for terms in sums
    ]


def _fits(tensors: Tensors, name: str, layout: Layout, sizes: Sizes) -> bool:
    shape, values = tensors[name].shape, _values(layout[name], sizes)
    return len(shape) == len(values) and all(
        value in (None, length) for value, length in zip(values, shape, strict=True)
    )


def _shapes(tensors: Tensors, names: list[str], layout: Layout, sizes: Sizes) -> str:
    """The shapes there are, and those expected, by name and in numbers as far as known."""
    described = []
    for name in names:
        words = _axes_of(layout[name])
        values = zip(words, _values(layout[name], sizes), strict=True)
        axes, numbers = (
            f"({', '.join(part)})"
            for part in (words, [word if value is None else str(value) for word, value in values])
        )
        expected = axes if axes == numbers else f"{axes} = {numbers}"
        described.append(f"{name} has shape {tuple(tensors[name].shape)}, expected {expected}")
    return listed(described)
