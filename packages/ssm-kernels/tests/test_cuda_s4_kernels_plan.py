"""How log_vandermonde and cauchy are dealt to a GPU: rules that hold for all sizes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

simulated = pytest.importorskip("ssm_kernels._simulated", reason="built by `make setup` only")

MOST_SHARED = 227 * 1024
sizes = st.one_of(st.integers(1, 9), st.integers(1, 5000))
lengths = st.one_of(st.integers(1, 300), st.integers(1, 2**20))


@given(
    channels=sizes, rows=sizes, steps=lengths, wide=st.booleans(), processors=st.integers(1, 200)
)
def test_tiles_of_powers(channels: int, rows: int, steps: int, wide: bool, processors: int) -> None:
    plan: dict[str, Any] = simulated.log_vandermonde_plan(channels, rows, steps, wide, processors)
    tile, tiles, lines = plan["steps_of_tile"], plan["tiles"], plan["lines_per_thread"]
    assert lines in ((2,) if wide else (1, 2, 4))
    assert tile == 1024 * lines
    assert (tiles - 1) * tile < steps <= tiles * tile
    assert plan["blocks"] == channels * rows * tiles
    if lines > 1 and not wide:
        assert 2 * steps >= tiles * tile
        assert plan["blocks"] >= processors
    numbers = max(plan["forward_numbers"], plan["backward_numbers"])
    assert numbers * (8 if wide else 4) <= MOST_SHARED


@given(rows=sizes, steps=lengths)
def test_more_work_never_makes_smaller_tiles(rows: int, steps: int) -> None:
    few = simulated.log_vandermonde_plan(1, rows, steps, False, 132)
    many = simulated.log_vandermonde_plan(2, rows, steps, False, 132)
    assert many["lines_per_thread"] >= few["lines_per_thread"]


@given(channels=sizes, rows=sizes, nodes=lengths, processors=st.integers(1, 200))
def test_tiles_of_nodes(channels: int, rows: int, nodes: int, processors: int) -> None:
    plan: dict[str, Any] = simulated.cauchy_plan(channels, rows, nodes, processors)
    tile, tiles, at_once = plan["nodes_of_tile"], plan["tiles"], plan["channels"]
    assert (at_once, plan["nodes_per_thread"]) in {(1, 1), (1, 2), (1, 4), (4, 1), (4, 2)}
    assert (tiles - 1) * tile < nodes <= tiles * tile
    assert (plan["channel_groups"] - 1) * at_once < channels <= plan["channel_groups"] * at_once
    assert plan["blocks"] == plan["channel_groups"] * rows * tiles
    assert plan["shared_numbers"] * 8 <= MOST_SHARED


@given(channels=sizes, rows=sizes, states=sizes, nodes=lengths)
def test_pieces_of_nodes(channels: int, rows: int, states: int, nodes: int) -> None:
    plan: dict[str, Any] = simulated.cauchy_pole_sums_plan(channels, rows, states, nodes)
    pieces, piece, at_once = plan["pieces"], plan["piece_nodes"], plan["states"]
    assert 1 <= piece <= 512
    assert (pieces - 1) * piece < nodes <= pieces * piece  # no piece is empty
    assert at_once * plan["sharers"] == 128
    assert plan["sharers"] == 1 or states <= at_once < 2 * states
    assert plan["blocks"] == plan["channel_groups"] * rows * pieces
    assert plan["workspace_bytes"] == pieces * channels * rows * states * 16
    assert plan["shared_numbers"] * 8 <= MOST_SHARED
