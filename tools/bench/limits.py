"""What the machine can do at best, and the bounds of the operators that follow from it.

Scan, per vector of state-steps: forward 9 multiply-add slots (the product delta A, 5 terms of the
exponential, the input, the state, the output), backward 16 (8 for states that are computed again,
8 for the gradients). Memory, in multiples of the triad's three streams of 4 bytes: the scan moves
u, delta and y forward, and u, delta, y and two gradients backward. A bound is the slower of both.

Convolution: 12 bytes per output forward (read, fetch before write, write), 28 bytes with the
backward pass, at the rate of the triad. The triad counts three streams; counted with the fetch
before its write it has four, and the fractions below would be 3/4 of those printed. What fits in
the last-level cache can exceed this bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch

from ssm_kernels import native

from .cases import Shape
from .machine import last_level_cache
from .report import Report

SLOTS = {"forward": 9, "backward": 16, "forward+backward": 25}  # multiply-adds per state-step
SCAN_BYTES = {"forward": 12, "backward": 21, "forward+backward": 33}  # per number in u
CONV_BYTES = {"forward": 12, "backward": 16, "forward+backward": 28}  # per output
LEAST_ARRAY = 64 * 2**20


@dataclass(frozen=True)
class Limits:
    """Measured rates per second of `threads` threads with one instruction set; see `native`."""

    threads: int
    isa: str
    multiply_add: float
    exponential: float
    triad: float  # elements
    triad_streaming: float

    @property
    def bandwidth(self) -> float:
        """Bytes per second of the triad, three streams counted."""
        return 12 * self.triad

    def scan_s(self, shape: Shape, what: str) -> float:
        """Least seconds of a scan: `what` is a key of SLOTS."""
        compute = shape.state_steps * SLOTS[what] / self.multiply_add
        return max(compute, shape.elements * SCAN_BYTES[what] / self.bandwidth)

    def conv_s(self, shape: Shape, what: str) -> float:
        """Least seconds of a convolution whose tensors do not fit in a cache."""
        return shape.elements * CONV_BYTES[what] / self.bandwidth

    def products_s(self, multiply_adds: float) -> float:
        """Least seconds of that many multiply-adds."""
        return multiply_adds / self.multiply_add


@cache
def measured(threads: int, isa: str, seconds: float = 0.25) -> Limits:
    """The limits with that instruction set, measured once per process (about a second)."""
    before = native.isa()
    native.set_isa(isa)
    try:
        return Limits(threads, isa, **native.machine_limits(threads, array_bytes(seconds), seconds))
    finally:
        native.set_isa(before)


def array_bytes(seconds: float) -> int:
    """Bytes of each of the triad's three arrays: together 6 times the last-level cache."""
    if seconds < 0.1:  # a smoke test, its figures mean nothing
        return 2**20
    return min(max(2 * last_level_cache(), LEAST_ARRAY), 2**30)


def run(report: Report, seconds: float) -> None:
    """Part limits: one thread and all, every instruction set that runs here."""
    for isa in reversed(native.available_isas()):
        for threads in sorted({1, torch.get_num_threads()}):
            limits = measured(threads, isa, seconds)
            case = f"{isa}, {threads} thread" + ("s" if threads > 1 else "")
            figures = {
                "multiply-add": (limits.multiply_add, "1/s"),
                "exponential": (limits.exponential, "1/s"),
                "triad": (limits.bandwidth, "B/s"),
                "streaming triad": (12 * limits.triad_streaming, "B/s"),
                "scan forward": (limits.multiply_add / SLOTS["forward"], "1/s"),
                "scan backward": (limits.multiply_add / SLOTS["backward"], "1/s"),
            }
            for what, (value, unit) in figures.items():
                report.add(case, what, "machine", value, unit=unit)
