"""How the scan's backward pass is dealt to a GPU: rules that hold for all sizes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

simulated = pytest.importorskip("ssm_kernels._simulated", reason="built by `make setup` only")

MULTIPROCESSOR_BYTES = 228 << 10  # of shared memory on sm_90; a block may have 227 KB
PLACES = ("rows", "carry", "A", "constant_B", "constant_C", "D", "delta_bias", "u", "z")


@given(
    directions=st.integers(1, 4),
    sequences=st.integers(0, 40),
    steps=st.integers(0, 5000),
    per_group=st.integers(0, 300),
    groups=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    states=st.integers(0, 300),
    flags=st.tuples(*[st.booleans()] * 6),
    most_shared_bytes=st.sampled_from([99 << 10, 163 << 10, 227 << 10]),  # sm_86, sm_80, sm_90
)
def test_rules(
    directions: int,
    sequences: int,
    steps: int,
    per_group: int,
    groups: tuple[int, int],
    states: int,
    flags: tuple[bool, ...],
    most_shared_bytes: int,
) -> None:
    complex_A, wide, _, long_strides, sum_u, sum_z = flags
    channels = per_group * 12  # a multiple of all numbers of groups
    sizes = (sequences, steps, channels, 2 * states if complex_A else states)
    plan: dict[str, Any] = simulated.selective_scan_backward_plan(
        directions, sequences, sizes, groups, flags, most_shared_bytes
    )
    n = sizes[3]
    in_registers = all(groups) and not (complex_A or wide or long_strides) and 1 <= n <= 64
    if most_shared_bytes == 99 << 10 and n > 32:
        in_registers = False
    assert (plan["lanes"] > 0) == in_registers
    if in_registers:
        lanes = plan["lanes"]
        assert lanes in (2, 4, 8, 16, 32)
        assert 2 * lanes >= n
        assert lanes == 2 or lanes < n  # no lane without a state
    assert plan["shared_bytes"] <= most_shared_bytes
    if in_registers and n > 4:
        blocks = 8 // plan["warps"]  # that a multiprocessor can hold: 8 warps
        assert blocks * (plan["shared_bytes"] + 1024) <= MULTIPROCESSOR_BYTES

    slabs = plan["slabs"]
    covered = [channel for first, count in slabs for channel in range(first, first + count)]
    assert covered == list(range(channels))
    for count_of_groups in filter(None, groups):
        size = channels // count_of_groups
        assert all(first // size == (first + count - 1) // size for first, count in slabs)
        assert len(slabs) % count_of_groups == 0  # as many for each group
    assert plan["blocks"] == directions * sequences * len(slabs)

    number = 8 if wide else 4
    matrix, vector = (directions * sequences * channels * size * number for size in (n, 1))
    tensor = directions * sequences * steps * channels * number
    rows = directions * len(slabs) * sequences * steps * 2 * n * number
    needed = (
        rows if any(groups) else 0,
        0 if in_registers else matrix,
        matrix,
        0 if groups[0] else matrix,
        0 if groups[1] else matrix,
        vector,
        vector,
        tensor if sum_u else 0,
        tensor if sum_z else 0,
    )
    ends = [*(plan[name] for name in PLACES[1:]), plan["workspace_bytes"]]
    for name, size, end in zip(PLACES, needed, ends, strict=True):
        assert plan[name] % 256 == 0
        assert plan[name] + size <= end
