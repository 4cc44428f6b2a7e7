"""The most memory that a model needs: of a CUDA device, or of this process."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Protocol

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Memory(Protocol):
    """Counts from its construction on."""

    def begin_runs(self) -> None:
        """What came before does not count as a peak."""

    def peak(self) -> int | None:
        """The most bytes at a time since `begin_runs`; None where nobody says it."""


def memory_of(device: torch.device) -> Memory:
    """The counter for a device."""
    return CudaMemory(device) if device.type == "cuda" else ProcessMemory()


class CudaMemory:
    """What tensors have on a CUDA device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def begin_runs(self) -> None:
        torch.cuda.reset_peak_memory_stats(self.device)

    def peak(self) -> int | None:
        return torch.cuda.max_memory_allocated(self.device)


class ProcessMemory:
    """Growth of this process; None where the system does not say it."""

    def __init__(self) -> None:
        self.before = _resident("VmRSS")

    def begin_runs(self) -> None:
        # the construction's own peak does not count, where the record can be reset (Linux)
        if _CLEAR.exists():
            _CLEAR.write_text("5")

    def peak(self) -> int | None:
        after = _resident("VmHWM")
        return None if after is None or self.before is None else max(after - self.before, 0)


def is_memory_error(error: Exception) -> bool:
    """Whether memory ran out: CUDA has an error of its own, the CPU's allocator only words."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return "DefaultCPUAllocator" in str(error) or "not enough memory" in str(error)


def _resident(field: str) -> int | None:
    """Resident bytes now (VmRSS) or at most (VmHWM); elsewhere than on Linux at most, both."""
    if _STATUS.exists():
        lines = _STATUS.read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
    if sys.platform == "win32":
        return None
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
