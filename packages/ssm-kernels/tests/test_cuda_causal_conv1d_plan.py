"""How the convolution is dealt to a GPU: rules that hold for all sizes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

simulated = pytest.importorskip("ssm_kernels._simulated", reason="built by `make setup` only")

MOST_SHARED = 48 * 1024
LONGEST, SHORTEST, WANTED = 128, 16, 132 * 1024
sizes = st.one_of(st.integers(0, 300), st.integers(0, 100_000))


def plan(batch: int, steps: int, channels: int, vector: int, **options: Any) -> dict[str, int]:
    sequences = options.pop("sequences", batch)
    states, staged = options.pop("states", True), options.pop("staged", False)
    made: dict[str, int] = simulated.causal_conv1d_plan(
        batch, steps, channels, sequences, states, vector, staged
    )
    return made


@given(batch=sizes, steps=sizes, channels=sizes, vector=st.sampled_from([1, 4]))
def test_every_step_and_channel_has_one_thread(
    batch: int, steps: int, channels: int, vector: int
) -> None:
    made = plan(batch, steps, channels, vector)
    assert made["lanes"] * made["rows"] == made["threads"]
    assert made["vectors"] * vector >= channels > (made["vectors"] - 1) * vector
    assert made["tiles"] * made["lanes"] >= made["vectors"]
    assert made["blocks"] == made["run_blocks"] + made["state_blocks"]
    assert made["state_blocks"] * made["threads"] >= batch * channels
    if 0 in (batch, steps):
        assert made["run_blocks"] == 0
        return
    per_line, length = made["runs_per_line"], made["run_steps"]
    assert (per_line - 1) * length < steps <= per_line * length  # the last run has a step
    assert made["runs"] == batch * per_line
    assert made["row_blocks"] * made["rows"] >= made["runs"] or made["tiles"] == 0
    assert made["run_blocks"] == made["tiles"] * made["row_blocks"]


@given(batch=sizes, steps=sizes, channels=sizes, vector=st.sampled_from([1, 4]))
def test_limits(batch: int, steps: int, channels: int, vector: int) -> None:
    made = plan(batch, steps, channels, vector)
    assert made["shared_bytes"] <= MOST_SHARED
    assert made["run_steps"] <= LONGEST
    assert made["partial_bytes"] == made["row_blocks"] * 9 * channels * 4
    idle = made["tiles"] * made["lanes"] - made["vectors"]
    assert idle < 8  # of the lanes of all tiles


@given(batch=sizes, steps=sizes, channels=sizes, vector=st.sampled_from([1, 4]))
def test_runs_are_long_if_there_are_threads_enough(
    batch: int, steps: int, channels: int, vector: int
) -> None:
    assume(batch * steps * channels > 0)
    made = plan(batch, steps, channels, vector)
    threads = made["runs"] * made["vectors"]
    if made["run_steps"] > SHORTEST:
        assert threads >= WANTED
    assert made["run_steps"] == steps or 2 * made["run_steps"] > SHORTEST


@given(steps=sizes, channels=sizes, sequences=st.integers(0, 500))
def test_packed_sequences(steps: int, channels: int, sequences: int) -> None:
    made = plan(1, steps, channels, 4, sequences=sequences)
    assert made["state_blocks"] * made["threads"] >= sequences * channels
    assert plan(1, steps, channels, 4, states=False)["state_blocks"] == 0
    if sequences == 0:
        assert made["run_blocks"] == 0  # there is no state to begin with


@given(batch=sizes, steps=sizes, channels=sizes, vector=st.sampled_from([2, 4]))
def test_staged_blocks_are_of_one_batch_index(
    batch: int, steps: int, channels: int, vector: int
) -> None:
    made = plan(batch, steps, channels, vector, staged=True)
    assert made["tile_bytes"] % 16 == 0
    assert made["tile_bytes"] + made["shared_bytes"] <= 100 * 1024  # two blocks at a time
    if 0 in (batch, steps, channels):
        return
    per_line, length, rows = made["runs_per_line"], made["run_steps"], made["rows"]
    assert per_line % rows == 0
    assert (per_line - rows) * length < steps <= per_line * length  # every block has a step
    assert made["runs"] == batch * per_line == made["row_blocks"] * rows


def test_partial_sums_are_small_beside_the_tensors() -> None:
    for batch, steps, channels in [(8, 2048, 1536), (128, 197, 384), (2, 16384, 2048)]:
        made = plan(batch, steps, channels, 4)
        assert made["partial_bytes"] * 5 // 9 < 0.15 * batch * steps * channels * 6
