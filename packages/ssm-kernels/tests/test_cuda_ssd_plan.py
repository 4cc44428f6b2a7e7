"""How the SSD scan is laid out on a GPU: every chunk once, workspaces apart, limits kept."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_cases import examples

simulated = pytest.importorskip("ssm_kernels._simulated", reason="built by `make setup` only")
sizes = st.tuples(
    st.integers(0, 9),  # b
    st.one_of(st.integers(0, 200), st.sampled_from([2048, 1 << 20])),
    st.integers(0, 80),  # h
    st.integers(0, 300),
    st.just(1),
    st.integers(0, 300),
)
dtypes = st.integers(0, 3)


def inputs_of(
    size: tuple[int, ...], dtype: int, skip: int = 0, sequences: int | None = None
) -> Any:
    inputs = simulated.SsdInputs()
    inputs.set_sizes(size, dtype)
    inputs.set_parameters([0, 256 if skip else 0, 0, 0], skip == 2)
    if sequences is not None:
        inputs.set_packing(256, sequences)
    return inputs


@examples
@given(size=sizes, dtype=dtypes, skip=st.integers(0, 2), backward=st.booleans())
def test_parts_of_the_workspace_are_apart_and_aligned(
    size: tuple[int, ...], dtype: int, skip: int, backward: bool
) -> None:
    plan = simulated.ssd_plan(inputs_of(size, dtype, skip), backward)
    _, _, h, p, _, n = size
    per_head = plan["chunks"] * h
    numbers = {
        "states": per_head * p * n,
        "grad_states": per_head * p * n,
        "decays": per_head,
        "grad_A": per_head,
        "grad_dt_bias": per_head,
        "grad_D": (0, per_head, per_head * p)[skip],
    }
    parts = sorted((at, numbers[name]) for name, at in plan["workspace"].items())
    end = 0
    for at, count in parts:
        assert at % 256 == 0
        assert at >= end
        end = at + count * (8 if dtype == 1 else 4)
    assert plan["bytes"] >= end


@examples
@given(size=sizes, dtype=dtypes)
def test_tiles_cover_the_state(size: tuple[int, ...], dtype: int) -> None:
    plan = simulated.ssd_plan(inputs_of(size, dtype), False)
    _, _, _, p, _, n = size
    for tiles, length in ((plan["channel_tiles"], p), (plan["state_tiles"], n)):
        assert (tiles - 1) * 64 < length <= tiles * 64 or length == tiles == 0
    assert (plan["carry_blocks"] - 1) * 256 < p * n <= plan["carry_blocks"] * 256 or p * n == 0


@examples
@given(b=st.integers(0, 9), l=st.integers(0, 300))
def test_chunks_of_a_batch_fill_the_places(b: int, l: int) -> None:
    plan = simulated.ssd_plan(inputs_of((b, l, 2, 3, 1, 4), 0), False)
    places = []
    for i in range(b):
        first, count = simulated.ssd_sequence_chunks(0, l, i, False)
        assert count == -(-l // plan["chunk"])
        places += range(first, first + count)
    assert places == list(range(plan["chunks"]))


@examples
@given(lengths=st.lists(st.one_of(st.integers(0, 3), st.integers(0, 200)), max_size=9))
def test_chunks_of_packed_sequences_never_share_a_place(lengths: list[int]) -> None:
    inputs = inputs_of((1, sum(lengths), 2, 3, 1, 4), 0, sequences=len(lengths))
    plan = simulated.ssd_plan(inputs, False)
    end = start = 0
    previous = -1
    for i, length in enumerate(lengths):
        first, count = simulated.ssd_sequence_chunks(start, length, i, True)
        assert count == -(-length // plan["chunk"])
        assert first >= end
        assert first > previous  # what the kernels search by
        end, previous, start = first + count, first, start + length
    assert end <= plan["chunks"]


@examples
@given(offsets=st.lists(st.integers(0, 200), min_size=2, max_size=9), l=st.integers(0, 200))
def test_whatever_the_offsets_no_place_is_out_of_the_workspace(offsets: list[int], l: int) -> None:
    """Offsets on a GPU are confined to [0, l] and to what precedes them, and otherwise unknown."""
    count = len(offsets) - 1
    plan = simulated.ssd_plan(inputs_of((1, l, 2, 3, 1, 4), 0, sequences=count), False)
    for i in range(count):
        first = min(offsets[i], l)
        steps = max(first, min(offsets[i + 1], l)) - first
        place, chunks = simulated.ssd_sequence_chunks(first, steps, i, True)
        assert place >= 0
        assert place + chunks <= plan["chunks"]
