"""Places of tokens: insertion and removal are inverse, orders too, for every kind and size."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ssm_core.errors import CheckpointError
from ssm_vision.models.vim_config import ClassToken
from ssm_vision.models.vim_tokens import (
    Shuffle,
    places_of,
    resampled_positions,
    resampled_positions_extra_first,
)

KINDS: dict[ClassToken, list[int]] = {
    "middle": [6],
    "random": [6],
    "head": [0],
    "double": [0, 13],
    "none": [],
}
sides = st.integers(1, 5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_sequence_of_3_by_4_patches(kind: ClassToken) -> None:
    places = places_of(kind, 3, 4)
    patches = torch.arange(1.0, 13.0).reshape(1, 12, 1).expand(2, 12, 5)
    tokens = [torch.full((1, 1, 5), -1.0 - i) for i in range(len(KINDS[kind]))]
    x = places.with_class_tokens(patches, tokens)
    expected = list(range(1, 13))
    for i, place in enumerate(KINDS[kind]):
        expected.insert(place, -1 - i)
    assert x[1, :, 2].tolist() == expected
    assert places.length == len(expected)


@given(rows=sides, columns=sides, kind=st.sampled_from(list(KINDS)), b=st.integers(0, 2))
def test_taking_out_what_was_put_in(rows: int, columns: int, kind: ClassToken, b: int) -> None:
    places = places_of(kind, rows, columns)
    patches = torch.randn(b, rows * columns, 3)
    tokens = [torch.randn(1, 1, 3) for _ in places.class_at]
    x = places.with_class_tokens(patches, tokens)
    assert x.shape == (b, places.length, 3)
    assert torch.equal(places.patches(x), patches)
    assert torch.equal(places.grid(x), patches.reshape(b, rows, columns, 3).permute(0, 3, 1, 2))
    for token, original in zip(places.class_tokens(x), tokens, strict=True):
        assert torch.equal(token, original.expand(b, 1, 3))


@given(rows=sides, columns=sides, seed=st.integers(0, 1000))
def test_a_moved_class_token_leaves_the_patches_in_order(
    rows: int, columns: int, seed: int
) -> None:
    torch.manual_seed(seed)
    places = places_of("random", rows, columns)
    (middle,) = places.class_at
    shuffle = Shuffle.moving_class_token(places, torch.device("cpu"))
    order = shuffle.there.tolist()
    assert [i for i in order if i != middle] == [i for i in range(places.length) if i != middle]
    assert len(order) == places.length
    assert shuffle.there[shuffle.back].tolist() == list(range(places.length))


def test_every_place_is_drawn() -> None:
    places = places_of("random", 1, 4)
    draws = {
        Shuffle.moving_class_token(places, torch.device("cpu")).there.tolist().index(2)
        for _ in range(200)
    }
    assert draws == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("kind", KINDS)
def test_positions_of_another_grid(kind: ClassToken) -> None:
    own, wanted = places_of(kind, 3, 4), places_of(kind, 5, 2)
    table = torch.randn(1, own.length, 6)
    new = resampled_positions(table, own, wanted)
    for a, b in zip(own.class_tokens(table), wanted.class_tokens(new), strict=True):
        assert torch.equal(a, b)
    grid = torch.nn.functional.interpolate(
        own.grid(table), (5, 2), mode="bicubic", align_corners=False
    )
    torch.testing.assert_close(wanted.grid(new), grid)
    assert resampled_positions(table, own, places_of(kind, 3, 4)) is table


def test_constant_positions_stay_constant() -> None:
    """Bicubic weights add up to 1 also at the edge."""
    own, wanted = places_of("middle", 3, 4), places_of("middle", 7, 9)
    table = torch.ones(1, own.length, 2)
    new = resampled_positions(table, own, wanted)
    torch.testing.assert_close(new, torch.ones(1, 64, 2))


def test_half_precision_tables_keep_their_type() -> None:
    own, wanted = places_of("head", 2, 2), places_of("head", 3, 3)
    table = torch.randn(1, 5, 4, dtype=torch.bfloat16)
    assert resampled_positions(table, own, wanted).dtype is torch.bfloat16


def test_extra_rows_first() -> None:
    table = torch.randn(1, 11, 3)
    same = resampled_positions_extra_first(table, 2, (3, 3))
    torch.testing.assert_close(same, table)
    new = resampled_positions_extra_first(table, 2, (6, 4))
    assert new.shape == (1, 26, 3)
    assert torch.equal(new[:, :2], table[:, :2])
    with pytest.raises(CheckpointError, match="11 rows, expected 1 of class tokens and a square"):
        resampled_positions_extra_first(table, 1, (3, 3))
