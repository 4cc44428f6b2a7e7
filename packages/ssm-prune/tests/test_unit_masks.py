"""Which units go: exact numbers, equal parts, ties by index, and never the last ones."""

from __future__ import annotations

import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ssm_core.errors import CheckpointError
from ssm_prune.unit_masks import UnitMasks, check_units
from ssm_prune.units import BlockAdapter, Slice, UnitGroup, places

#: few distinct values, so that most scores tie
VALUES = st.sampled_from([0.0, 0.5, 0.5, 1.0, 3.0, -2.0])


class Units(nn.Module):
    """Some units with two weights each."""

    def __init__(self, count: int, round_to: int = 1, parts: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(count, 2))
        self.round_to, self.parts = round_to, parts


def ask(module: nn.Module, fqn: str, model: nn.Module) -> BlockAdapter | None:
    if not isinstance(module, Units):
        return None
    count = len(module.weight)
    rows = (Slice("weight", 0, places(count)),)
    group = UnitGroup(
        "channels", count, rows, rows, rows, lambda kept: {}, module.round_to, module.parts
    )
    return BlockAdapter((group,))


def masks_of(*modules: Units) -> UnitMasks:
    return UnitMasks(nn.ModuleList(modules), "channels", ask)


def scores_of(values: dict[str, list[float]]) -> dict[str, Tensor]:
    """Both weights of a unit have its score."""
    return {f"{n}.weight": torch.tensor(v).unsqueeze(1).expand(-1, 2) for n, v in values.items()}


@st.composite
def groups(draw: st.DrawFn) -> list[tuple[Units, list[float]]]:
    found = []
    for _ in range(draw(st.integers(1, 3))):
        parts = draw(st.integers(1, 3))
        # a single unit is no group: it has to stay
        count = parts * draw(st.integers(2 if parts == 1 else 1, 5))
        values = draw(st.lists(VALUES, min_size=count, max_size=count))
        found.append((Units(count, draw(st.integers(1, 4)), parts), values))
    return found


def relative(values: list[float]) -> list[float]:
    """Scores as multiples of their mean size."""
    scores = torch.tensor(values)
    middle = scores.abs().mean()
    return (scores / middle if float(middle) else scores).tolist()


def numbers_to_drop(
    cases: list[tuple[Units, list[float]]], kept: list[list[bool]], sparsity: float, scope: str
) -> list[int]:
    """What the sparsity asks of each group, before anything is rounded."""
    if scope == "layer":
        return [round(sparsity * len(values)) for _, values in cases]
    ranked = sorted(
        (score if kept[i][j] else -math.inf, i, j)
        for i, (_, values) in enumerate(cases)
        for j, score in enumerate(relative(values))
    )
    dropped = [i for _, i, _ in ranked[: round(sparsity * len(ranked))]]
    return [dropped.count(i) for i in range(len(cases))]


def oracle(unit: Units, values: list[float], kept: list[bool], drop: int) -> list[bool]:
    """Try all numbers of units, the larger first, and then sort each part."""
    count, present = len(values), sum(kept)
    multiple = unit.round_to * unit.parts
    if multiple > count:
        multiple = unit.parts
    best = present
    for number in range(present, 0, -1):
        allowed = number == present or number % multiple == 0
        if allowed and abs(number - (count - drop)) < abs(best - (count - drop)):
            best = number
    size, answer = count // unit.parts, [False] * count
    for part in range(unit.parts):
        order = range(part * size, (part + 1) * size)
        # of equal scores the later one stays
        worst_first = sorted(order, key=lambda i: (kept[i], relative(values)[i], i))
        for i in worst_first[size - best // unit.parts :]:
            answer[i] = True
    return answer


@settings(max_examples=200, deadline=None)
@given(
    cases=groups(),
    steps=st.lists(st.floats(0, 0.99), min_size=1, max_size=3),
    scope=st.sampled_from(["global", "layer"]),
)
def test_choice_equals_the_sorted_oracle(
    cases: list[tuple[Units, list[float]]], steps: list[float], scope: str
) -> None:
    units = masks_of(*(unit for unit, _ in cases))
    scores = scores_of({str(i): values for i, (_, values) in enumerate(cases)})
    kept = [[True] * len(values) for _, values in cases]
    for sparsity in sorted(steps):
        chosen = units.choose(scores, sparsity, scope)
        drops = numbers_to_drop(cases, kept, sparsity, scope)
        for i, (unit, values) in enumerate(cases):
            keep, group = chosen[str(i)], units.groups[str(i)]
            expected = oracle(unit, values, kept[i], drops[i])
            assert keep.tolist() == expected
            assert not bool((keep & ~torch.tensor(kept[i])).any())  # masked units stay so
            assert bool(keep.any())
            assert check_units(group, str(i), keep) is None
            kept[i] = expected
        units.keep |= chosen


@settings(max_examples=100, deadline=None)
@given(cases=groups(), sparsity=st.floats(0, 0.99))
def test_rounding_is_the_most_that_a_request_is_missed_by(
    cases: list[tuple[Units, list[float]]], sparsity: float
) -> None:
    units = masks_of(*(unit for unit, _ in cases))
    scores = scores_of({str(i): values for i, (_, values) in enumerate(cases)})
    units.keep |= units.choose(scores, sparsity, "layer")
    asked = sum(round(sparsity * group.count) for group in units.groups.values())
    # the smallest number that is kept is a multiple, too
    smallest = sum(
        max(0, round(sparsity * g.count) - g.count + _multiple(g)) for g in units.groups.values()
    )
    assert units.removed <= asked + units.rounding
    assert units.removed >= asked - units.rounding - smallest


def _multiple(group: UnitGroup) -> int:
    wanted = group.round_to * group.parts
    return wanted if wanted <= group.count else group.parts


def test_groups_with_larger_weights_are_not_preferred() -> None:
    units = masks_of(Units(4), Units(4))
    chosen = units.choose(
        scores_of({"0": [1.0, 2.0, 3.0, 4.0], "1": [400.0, 300.0, 200.0, 100.0]}), 0.5, "global"
    )
    assert chosen["0"].tolist() == [False, False, True, True]
    assert chosen["1"].tolist() == [True, True, False, False]


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_a_model_without_units_has_nothing_to_choose(scope: str) -> None:
    assert masks_of(Units(1)).choose({}, 0.5, scope) == {}


def test_infinite_scores_neither_revive_a_unit_nor_hide_the_others() -> None:
    units = masks_of(Units(4))
    units.keep["0"] = torch.tensor([True, True, True, False])
    values = [math.inf, -math.inf, 1.0, math.inf]
    chosen = units.choose(scores_of({"0": values}), 0.5, "global")
    assert chosen["0"].tolist() == [True, False, True, False]


def test_state_is_taken_back_and_refused_by_other_models() -> None:
    units, other = masks_of(Units(4), Units(3)), masks_of(Units(4), Units(3))
    units.keep["1"] = torch.tensor([True, False, True])
    state = units.state_dict()
    assert list(state) == ["1"]
    other.load_state_dict(state)
    assert other.removed == 1
    assert other.keep["1"].tolist() == [True, False, True]
    with pytest.raises(CheckpointError, match="masks 3 channels of 1, which this model does not"):
        masks_of(Units(4), Units(5)).load_state_dict(state)


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        (torch.ones(6), "torch.float32"),
        (torch.ones(5, dtype=torch.bool), r"\(5,\), expected torch.bool \(6,\)"),
        (torch.zeros(6, dtype=torch.bool), "no unit of mixer would be left"),
        (torch.tensor([1, 1, 1, 1, 1, 0]).bool(), "equally many in each"),
    ],
)
def test_wrong_units_are_explained(keep: Tensor, words: str) -> None:
    problem = check_units(masks_of(Units(6, parts=2)).groups["0"], "mixer", keep)
    assert problem is not None
    assert re.search(words, problem)
