"""Windows and neighbourhoods of maps, against loops over positions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mambavision_reference import neighbours

from ssm_vision.models.window import merge_windows, neighbours_of, split_windows

sizes = st.integers(1, 9)


@given(st.integers(0, 2), sizes, sizes, st.integers(1, 5))
@settings(deadline=None, max_examples=40)
def test_every_token_is_where_it_belongs(b: int, rows: int, columns: int, side: int) -> None:
    x = torch.randn(b, 2, rows, columns)
    tokens = split_windows(x, side)
    down, across = -(-rows // side), -(-columns // side)
    assert tokens.shape == (b * down * across, side * side, 2)
    grid = tokens.view(b, down, across, side, side, 2)
    for y in range(down * side):
        for z in range(across * side):
            token = grid[:, y // side, z // side, y % side, z % side]
            if y < rows and z < columns:
                assert torch.equal(token, x[:, :, y, z])
            else:
                assert not token.any()
    assert torch.equal(merge_windows(tokens, side, x.shape), x)


def test_one_channel_last_window_is_not_copied() -> None:
    x = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    assert split_windows(x, 4).data_ptr() == x.data_ptr()


@given(sizes, sizes, st.sampled_from([1, 3, 5]), st.integers(1, 4))
@settings(deadline=None, max_examples=40)
def test_neighbours(rows: int, columns: int, window: int, dilation: int) -> None:
    seen = neighbours_of(rows, columns, window, dilation, torch.device("cpu"))
    expected = neighbours(rows, columns, window, dilation)
    assert [sorted(row.nonzero()[:, 0].tolist()) for row in seen] == [sorted(e) for e in expected]


@pytest.mark.parametrize(("window", "dilation", "count"), [(3, 1, 9), (3, 2, 9), (5, 2, 25)])
def test_inside_the_map_a_full_window_is_seen(window: int, dilation: int, count: int) -> None:
    seen = neighbours_of(9, 9, window, dilation, torch.device("cpu"))
    assert seen[40].sum() == count
    assert seen[40, 40]
    assert seen[0].sum() == (window // 2 + 1) ** 2
