"""Seconds of one run on the device, cold: the caches hold nothing of the run before."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

FLUSHED_BYTES = 256 * 2**20  # several times the second-level cache
#: The GPU waits as long before each run (about 1 ms), so that the calls of the processor are made
#: by the time the run starts: its overhead is not what is measured here.
WAITED_CLOCKS = 2_000_000

Run = Callable[[], object]


class Clock:
    """Times runs: with CUDA events on a GPU, with the processor's clock elsewhere."""

    def __init__(self, device: torch.device) -> None:
        self.on_gpu = device.type == "cuda"
        if self.on_gpu:
            self._flushed = torch.empty(FLUSHED_BYTES, dtype=torch.uint8, device=device)

    def seconds(self, run: Run) -> float:
        if not self.on_gpu:
            start = time.perf_counter()
            run()
            return time.perf_counter() - start
        start_event, end_event = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        self._flushed.zero_()
        torch.cuda._sleep(WAITED_CLOCKS)
        start_event.record()
        kept = run()
        end_event.record()
        torch.cuda.synchronize()
        del kept
        return start_event.elapsed_time(end_event) / 1e3

    def peak_bytes(self, run: Run) -> int | None:
        """Most memory of torch's allocator beyond what was there before; None without a GPU."""
        if not self.on_gpu:
            return None
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        kept = run()
        torch.cuda.synchronize()
        del kept
        return torch.cuda.max_memory_allocated() - before
