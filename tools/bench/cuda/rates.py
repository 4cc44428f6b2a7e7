"""Microbenchmarks of the GPU: the constants behind the floors.

Bandwidth: torch's copy of a tensor far larger than the caches, bytes read and written. Products:
torch's product of two 8192 x 8192 bfloat16 matrices. Exponentials: chains of `exp2` in registers, a
Triton kernel (one load and store for 256 exponentials); torch.exp2 itself waits for memory. What
cannot be measured is assumed, and `how` says so.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable

import torch

from .clock import Clock
from .floors import ASSUMED, Rates

COPIED_BYTES = 2 * 2**30
SIDE = 8192
BLOCK, BLOCKS = 1024, 132 * 16 * 8
REPEATS = 20


def measured(clock: Clock) -> Rates:
    """The rates of the current GPU; those assumed where there is none."""
    if not clock.on_gpu:
        return ASSUMED
    bandwidth, products = copy_rate(clock), product_rate(clock)
    rates = dataclasses.replace(
        ASSUMED, bandwidth=bandwidth, products=products, how="copy, exp2 in registers, matmul"
    )
    try:
        return dataclasses.replace(rates, exponentials=exponential_rate(clock))
    except (ImportError, RuntimeError) as error:
        how = f"copy, matmul; exponentials {ASSUMED.how} ({type(error).__name__}: {error})"
        return dataclasses.replace(rates, how=how.splitlines()[0])


def copy_rate(clock: Clock) -> float:
    source = torch.zeros(COPIED_BYTES, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * COPIED_BYTES / _median(clock, lambda: target.copy_(source))


def product_rate(clock: Clock) -> float:
    a, b = (torch.randn(SIDE, SIDE, dtype=torch.bfloat16, device="cuda") for _ in range(2))
    return 2 * SIDE**3 / _median(clock, lambda: a @ b)


def exponential_rate(clock: Clock) -> float:
    from .exponentials import CHAIN, repeated

    x = torch.zeros(BLOCK * BLOCKS, device="cuda")
    seconds = _median(clock, lambda: repeated[(BLOCKS,)](x, CHAIN, BLOCK))
    return x.numel() * CHAIN / seconds


def _median(clock: Clock, run: Callable[[], object]) -> float:
    run()
    return statistics.median(clock.seconds(run) for _ in range(REPEATS))
