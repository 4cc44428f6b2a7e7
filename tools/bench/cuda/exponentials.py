"""A kernel that does nothing but exponentials, to measure how many the GPU makes per second."""

from __future__ import annotations

import triton
from triton import language as tl

CHAIN = 256


@triton.jit
def repeated(pointer, n: tl.constexpr, block: tl.constexpr):  # type: ignore[no-untyped-def]
    """x <- 2^-x, n times; stays between 0 and 1."""
    places = tl.program_id(0) * block + tl.arange(0, block)
    x = tl.load(pointer + places)
    for _ in tl.static_range(n):
        x = tl.exp2(-x)
    tl.store(pointer + places, x)
