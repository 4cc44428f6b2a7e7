"""How the CUDA selective scan, forward, is cut into blocks, as pure functions of sizes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

kernels = pytest.importorskip("ssm_kernels._simulated", reason="built by `make setup` only")

SIZES = st.tuples(
    st.integers(1, 4),
    st.integers(1, 300),
    st.integers(0, 100_000),
    st.integers(1, 64).map(lambda k: 12 * k),
    st.integers(1, 64),
)
GROUPS = st.tuples(*[st.sampled_from([1, 2, 3, 4, 6, 12])] * 2)


def plan(sizes, groups=(1, 1), multiprocessors=132, most_shared_bytes=227 << 10):
    return kernels.selective_scan_forward_plan(sizes, groups, multiprocessors, most_shared_bytes)


@given(sizes=SIZES, most=st.sampled_from([99 << 10, 163 << 10, 227 << 10]))  # sm_86, sm_80, sm_90
def test_a_block_fits_into_shared_memory(sizes, most):
    found = plan(sizes, most_shared_bytes=most)
    assert 0 < found["shared_bytes"] <= most
    assert found["lanes"] * found["lane_states"] >= sizes[4]


@given(sizes=SIZES, groups=GROUPS, multiprocessors=st.sampled_from([1, 46, 132]))
def test_blocks_cover_every_channel_once_and_never_two_groups(sizes, groups, multiprocessors):
    found = plan(sizes, groups, multiprocessors)
    channels = [d for first, count in found["blocks"] for d in range(first, first + count)]
    assert channels == list(range(sizes[3]))
    for first, count in found["blocks"]:
        assert 0 < count <= 128 // found["lanes"]
        for g in groups:
            assert first // (sizes[3] // g) == (first + count - 1) // (sizes[3] // g)


@given(sizes=SIZES, groups=GROUPS, multiprocessors=st.sampled_from([1, 46, 132]))
def test_lanes_hold_all_states_and_parts_all_steps(sizes, groups, multiprocessors):
    directions, sequences, steps, _, n = sizes
    found = plan(sizes, groups, multiprocessors)
    lanes, lane_states = found["lanes"], found["lane_states"]
    assert lanes in (1, 2, 4, 8)
    assert lane_states in (1, 2, 4, 8, 16)
    assert n <= lanes * lane_states < 2 * n
    assert lanes == 1 or lane_states > 1  # the kernels that exist
    parts, part_steps = found["parts"], found["part_steps"]
    assert part_steps % 32 == 0
    assert parts == 1 or (parts - 1) * part_steps < steps
    assert parts * part_steps >= steps
    assert found["grid"] == directions * sequences * parts * len(found["blocks"])


@given(sizes=SIZES, groups=GROUPS, multiprocessors=st.sampled_from([1, 46, 132]))
def test_workspace_pieces_do_not_overlap(sizes, groups, multiprocessors):
    directions, sequences, _, d, n = sizes
    found = plan(sizes, groups, multiprocessors)
    if found["parts"] == 1:
        assert found["workspace_bytes"] == 0
        return
    units = directions * sequences * found["parts"]
    pieces = [(found["states_offset"], units * n * d * 4), (found["deltas_offset"], units * d * 4)]
    assert all(offset % 256 == 0 for offset, _ in pieces)
    assert pieces[0][0] + pieces[0][1] <= pieces[1][0]
    assert pieces[1][0] + pieces[1][1] <= found["workspace_bytes"]


@given(sizes=SIZES)
def test_time_is_split_only_where_channels_are_too_few(sizes):
    found = plan(sizes)
    warps = 4 * len(found["blocks"]) * sizes[0] * sizes[1]
    if found["parts"] > 1:
        assert warps < 12 * 132
        assert found["parts"] >= 3  # the decays are computed twice
        assert found["lane_states"] <= 2 or found["lanes"] == 8  # lanes come first
        assert found["part_steps"] >= 128
    directions, sequences, steps, d, n = sizes
    assert plan((directions, 2 * sequences, steps, d, n))["parts"] <= found["parts"]


@pytest.mark.parametrize(
    ("sizes", "lanes", "parts"),
    [
        ((1, 128, 197, 384, 16), 2, 1),  # Vim-Ti, images of 224
        ((1, 128, 49, 320, 8), 2, 1),  # MambaVision-T
        ((1, 8, 2048, 1536, 16), 8, 1),  # mamba-130m
        ((1, 1, 4096, 1536, 16), 8, 6),  # one sequence
        ((4, 128, 3136, 96, 1), 1, 1),  # VMamba-T
    ],
)
def test_choices_for_known_models(sizes, lanes, parts):
    found = plan(sizes)
    assert (found["lanes"], found["parts"]) == (lanes, parts)


@given(
    rows=st.integers(0, 9),
    columns=st.integers(1, 9),
    reverse=st.booleans(),
    by_columns=st.booleans(),
)
def test_every_order_of_time_visits_every_step_once(rows, columns, reverse, by_columns):
    steps = rows * columns
    order = kernels.scan_time_order(steps, 0, steps, reverse, columns if by_columns else 0)
    expected = [r * columns + c for c in range(columns) for r in range(rows)]
    expected = expected if by_columns else list(range(steps))
    assert order == (expected[::-1] if reverse else expected)


@given(first=st.integers(0, 50), count=st.integers(0, 50), reverse=st.booleans())
def test_packed_sequences_are_visited_where_they_lie(first, count, reverse):
    order = kernels.scan_time_order(200, first, count, reverse, 0)
    places = list(range(first, first + count))
    assert order == (places[::-1] if reverse else places)


@given(
    offsets=st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-5, 105), min_size=2),
    steps=st.integers(0, 100),
)
def test_any_offsets_stay_inside(offsets, steps):
    places = steps // 32 + len(offsets) - 1
    for first, count, checkpoint in kernels.scan_packed_sequences(offsets, steps):
        assert 0 <= first <= first + count <= steps
        assert checkpoint >= 0
        assert count == 0 or checkpoint + (count + 31) // 32 <= places


@given(lengths=st.lists(st.integers(0, 40), min_size=1))
def test_checkpoints_of_packed_sequences_do_not_meet(lengths):
    offsets = [sum(lengths[:i]) for i in range(len(lengths) + 1)]
    used = []
    for _, count, checkpoint in kernels.scan_packed_sequences(offsets, offsets[-1]):
        used += range(checkpoint, checkpoint + (count + 31) // 32)
    assert len(set(used)) == len(used)


@given(
    address=st.integers(1, 64),
    strides=st.tuples(*[st.integers(-64, 64)] * 3),
    columns=st.integers(1, 64),
    element_bytes=st.sampled_from([2, 4]),
    tile_columns=st.sampled_from([1, 2, 4, 16, 64]),
)
def test_asynchronous_copies_are_aligned(address, strides, columns, element_bytes, tile_columns):
    step, column, others = strides
    copy, together = kernels.scan_tile_copies(
        address, strides, columns, element_bytes, tile_columns
    )
    if copy == 0:
        return
    assert copy in (4, 8, 16)
    sizes = [others] + ([column] if together else [step, columns])
    assert all(x * element_bytes % copy == 0 for x in sizes)
    assert address % copy == 0
    assert (step if together else column) == 1
    assert together or copy <= tile_columns * element_bytes
