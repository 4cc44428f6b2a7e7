"""The measured limits of the machine: plausible numbers, never a speed that must be reached."""

from __future__ import annotations

import math

import pytest

from ssm_kernels import native

pytestmark = pytest.mark.skipif(not native.AVAILABLE, reason=f"not built: {native.IMPORT_ERROR}")

RATES = {"multiply_add", "exponential", "triad", "triad_streaming"}
MEBIBYTE = 2**20


@pytest.mark.parametrize("threads", [1, 2])
def test_rates_are_finite_and_positive(isa: str, threads: int) -> None:
    rates = native.machine_limits(threads, MEBIBYTE, seconds=0.0)
    assert rates.keys() == RATES
    assert all(math.isfinite(rate) and rate > 0 for rate in rates.values())


def test_no_loop_is_deleted_by_the_compiler(isa: str) -> None:
    # A loop without its work "runs" faster than any processor: at most 4 instructions of so many
    # lanes per tick, ticks of at most 6 GHz; an exponential takes at least 8 instructions.
    most = {"baseline": 4, "avx2": 8, "avx512": 16}.get(isa, 16) * 4 * 6e9
    rates = native.machine_limits(1, MEBIBYTE, seconds=0.01)
    assert rates["multiply_add"] < most
    assert rates["exponential"] < most / 8
    assert rates["triad"] < most


def test_arrays_need_not_divide_evenly() -> None:
    for size in (256, 257, 1023, 3 * MEBIBYTE + 5):
        assert native.machine_limits(3, size, seconds=0.0)["triad"] > 0


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((0, MEBIBYTE, 0.1), "num_threads"),
        ((1, 255, 0.1), "array_bytes"),
        ((1, 256, -1.0), "seconds"),
    ],
)
def test_arguments_too_small_are_named(arguments: tuple[int, int, float], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        native.machine_limits(*arguments)
