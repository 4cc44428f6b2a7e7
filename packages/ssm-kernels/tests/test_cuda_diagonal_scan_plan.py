"""How the CUDA kernels of the diagonal scan cut a call up: properties of pure functions."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

simulated = pytest.importorskip("ssm_kernels._simulated", reason="built by `make setup` only")

LANES = 32
F32, F64, BF16 = 0, 1, 2
sizes = st.one_of(st.integers(1, 70), st.sampled_from([197, 1536, 4099, 2**17, 2**20 + 1]))
calls = st.fixed_dictionaries(
    {
        "sizes": st.tuples(sizes, sizes, sizes),
        "dtype": st.sampled_from([F32, F64, BF16]),
        "own_a": st.tuples(st.booleans(), st.booleans(), st.booleans()),
        "gradient_of_a": st.sampled_from([None, False, True]),
        "turned": st.booleans(),
        "multiprocessors": st.sampled_from([1, 20, 108, 132, 148]),
    }
)
properties = settings(max_examples=200, deadline=None)
Call = dict[str, object]


def plan_of(call: Call, is_complex: bool = False, packed: int | None = None) -> dict[str, int]:
    return dict(
        simulated.diagonal_scan_plan(**call, is_complex=is_complex, packed_sequences=packed)
    )


def group(call: Call) -> int:
    return 2 if call["dtype"] == BF16 else 1


@properties
@given(call=calls, packed=st.one_of(st.none(), st.integers(0, 3000)))
def test_every_number_has_one_lane(call: Call, packed: int | None) -> None:
    b, l, d = call["sizes"]
    if packed is not None:
        b, call["sizes"] = packed, (1, l, d)
    plan = plan_of(call, packed=packed)
    groups = -(-d // group(call))
    assert groups <= plan["row"] < groups + LANES
    assert plan["row_blocks"] == -(-b * plan["row"] // LANES)
    if packed is not None:  # their lengths differ: a block has one of them
        assert plan["row"] % LANES == 0
    assert plan["chunk_steps"] * plan["chunks"] >= l
    assert plan["chunk_steps"] % (plan["warps"] * plan["run_steps"]) == 0
    assert plan["blocks"] == plan["row_blocks"] * plan["chunks"]


@properties
@given(call=calls, is_complex=st.booleans())
def test_limits_of_the_machine(call: Call, is_complex: bool) -> None:
    assume(not (is_complex and call["dtype"] == BF16))
    plan = plan_of(call, is_complex)
    assert 1 <= plan["warps"] <= 8
    assert 4 <= plan["run_steps"] <= 16
    assert plan["tile_offset"] % 128 == 0
    assert plan["shared_bytes"] <= 48 * 1024  # more would have to be asked for
    lanes = LANES * group(call) * plan["number_bytes"]
    assert plan["tile_offset"] >= 2 * (2 * plan["warps"] + 1) * lanes
    if call["turned"]:
        steps = plan["warps"] * plan["run_steps"]
        assert plan["shared_bytes"] - plan["tile_offset"] >= steps * lanes


@properties
@given(call=calls, is_complex=st.booleans())
def test_workspace_has_room_for_maps_and_sums(call: Call, is_complex: bool) -> None:
    assume(not (is_complex and call["dtype"] == BF16))
    plan = plan_of(call, is_complex)
    b, l, d = call["sizes"]
    assume(b * l * d < 2**50)
    number = plan["number_bytes"]
    assert number == (8 if call["dtype"] == F64 else 4) * (2 if is_complex else 1)
    maps = 2 * b * plan["chunks"] * d * number if plan["chunks"] > 1 else 0
    assert maps <= plan["partials_offset"] < maps + 256
    assert plan["partials_offset"] % 256 == 0
    partials = plan["workspace_bytes"] - plan["partials_offset"]
    if not call["gradient_of_a"]:
        assert partials == 0
        return
    shape = [size if own else 1 for size, own in zip((b, l, d), call["own_a"], strict=True)]
    assert plan["groups"] * plan["sums"] == shape[0] * shape[1] * shape[2]
    if plan["summed"] == 1:
        assert partials == 0  # written where they belong
    else:
        assert partials == plan["groups"] * plan["summed"] * plan["sums"] * number
        assert not all(call["own_a"])


@properties
@given(call=calls)
def test_sequences_are_cut_only_for_more_blocks(call: Call) -> None:
    plan = plan_of(call)
    blocks, available = plan["row_blocks"], call["multiprocessors"]
    if 5 * blocks >= 3 * available:
        assert plan["chunks"] == 1
    elif plan["chunks"] > 1:
        assert plan["blocks"] < 2 * available + blocks
        assert plan["chunk_steps"] >= 2 * plan["warps"] * plan["run_steps"]
    elif available > 1:
        assert call["sizes"][1] < 4 * plan["warps"] * plan["run_steps"]


@properties
@given(call=calls, factor=st.integers(2, 5))
def test_more_channels_never_mean_more_chunks(call: Call, factor: int) -> None:
    b, l, d = call["sizes"]
    assert plan_of({**call, "sizes": (b * factor, l, d)})["chunks"] <= plan_of(call)["chunks"]


def test_a_large_call_reads_everything_once() -> None:
    call = {
        "sizes": (8, 2048, 1536),
        "dtype": F32,
        "own_a": (True, True, True),
        "gradient_of_a": None,
        "turned": False,
        "multiprocessors": 132,
    }
    plan = plan_of(call)
    assert plan["chunks"] == 1
    assert plan["blocks"] == 384
    assert plan["workspace_bytes"] == 0
    assert plan_of({**call, "sizes": (1, 2**16, 64)})["chunks"] == 132
