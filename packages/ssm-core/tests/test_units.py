"""Places of units in tensors."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ssm_core.units import HasUnits, Slice, hidden_channels, places


@given(
    count=st.integers(1, 6),
    starts=st.lists(st.integers(0, 30), max_size=3),
    width=st.integers(1, 3),
)
def test_places_lie_one_after_the_other_in_each_run(
    count: int, starts: list[int], width: int
) -> None:
    expected = [
        [start + unit * width + i for start in starts or [0] for i in range(width)]
        for unit in range(count)
    ]
    assert places(count, *starts, width=width).tolist() == expected


def test_a_slice_knows_the_places_of_its_own_units_only() -> None:
    chosen = torch.tensor([True, False, True, True])
    assert Slice("w", 0, places(4, 0, 10)).places_of(chosen).tolist() == [0, 2, 3, 10, 12, 13]
    second_half = Slice("w", 0, places(2), torch.tensor([2, 3]))
    assert second_half.places_of(chosen).tolist() == [0, 1]
    assert second_half.places_of(torch.tensor([True, True, False, True])).tolist() == [1]


def test_hidden_channels_are_rows_here_and_columns_there() -> None:
    group = hidden_channels(5, ("first.weight", "first.bias"), "second.weight")
    assert (group.kind, group.count, group.round_to) == ("channels", 5, 8)
    removed = {(part.parameter, part.dim) for part in group.removed}
    assert removed == {("first.weight", 0), ("first.bias", 0), ("second.weight", 1)}
    assert [part.parameter for part in group.masked] == ["second.weight"]
    assert group.sizes([0, 3]) == {"hidden": 2}


def test_a_module_has_units_if_it_has_the_method() -> None:
    class Prunable(nn.Linear):
        def removable_units(self) -> None: ...

    assert isinstance(Prunable(2, 2), HasUnits)
    assert not isinstance(nn.Linear(2, 2), HasUnits)
