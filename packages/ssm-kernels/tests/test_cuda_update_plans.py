"""How the update operators are dealt to a GPU: rules that hold for all sizes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

simulated = pytest.importorskip("ssm_kernels._simulated", reason="built by `make setup` only")

sizes = st.one_of(st.integers(0, 9), st.integers(0, 5000))


@given(batch=sizes, steps=st.integers(0, 3), channels=sizes)
def test_a_thread_per_channel(batch: int, steps: int, channels: int) -> None:
    plan: dict[str, Any] = simulated.causal_conv1d_update_plan(batch, steps, channels)
    per_row = plan["blocks_per_row"]
    assert per_row * plan["threads"] >= channels > (per_row - 1) * plan["threads"]
    assert plan["blocks"] == (batch * per_row if steps else 0)


@given(
    batch=sizes,
    heads=sizes,
    channels=sizes,
    states=sizes,
    vectors=st.booleans(),
    adjacent=st.booleans(),
)
def test_lanes_share_channels(
    batch: int, heads: int, channels: int, states: int, vectors: bool, adjacent: bool
) -> None:
    plan: dict[str, Any] = simulated.selective_state_update_plan(
        batch, heads, channels, states, vectors, adjacent
    )
    lanes, vector = plan["lanes"], plan["vector"]
    assert vector == (4 if vectors else 1)
    assert lanes in (1, 2, 4, 8, 16, 32)
    if adjacent and not vectors:
        assert lanes == 1  # neighbouring lanes read neighbouring channels
    else:
        assert lanes == 32 or lanes * vector >= states
        assert lanes == 1 or (lanes // 2) * vector < states  # no lane idles that need not
    per_block = plan["threads"] // lanes
    per_head = plan["blocks_per_head"]
    assert per_head * per_block >= channels > (per_head - 1) * per_block
    assert plan["blocks"] == batch * heads * per_head
