"""The most memory one action needs beyond its inputs, measured in a process of its own.

The process notes its resident memory once the inputs exist, resets the kernel's record of the peak,
and reads the peak after the action. Results count: they are the least an action can need.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
Arguments = Sequence[Any]


def peak_of(make: str, warm: Arguments, arguments: Arguments, limit_s: float) -> float | str:
    """Extra bytes of an action in a new process, or why it has none.

    `make` ("module.function" of this package) returns the action for the arguments, which must fit
    into JSON; it runs with those of `warm` first, which loads libraries and starts threads.
    """
    case = json.dumps([make, warm, arguments, torch.get_num_threads()])
    tools = str(Path(__file__).resolve().parents[1])
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "bench.peak", case],
            env={**os.environ, "PYTHONPATH": tools},
            capture_output=True,
            text=True,
            timeout=2 * limit_s + 30,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "took too long"
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["failed"])[-1][:120]
    return float(done.stdout)


def child(case: str) -> None:
    path, warm, arguments, threads = json.loads(case)
    module, function = path.rsplit(".", 1)
    make = getattr(importlib.import_module(f"{__package__}.{module}"), function)
    torch.set_num_threads(threads)
    make(*warm)()
    action = make(*arguments)
    before = resident_now()
    if os.access(CLEAR, os.W_OK):
        CLEAR.write_text("5")  # the peak starts anew
    action()
    print(max(peak() - before, 0))


def resident_now() -> int:
    return status("VmRSS") if STATUS.exists() else peak()


def peak() -> int:
    """Most resident bytes so far; on Linux since the record was reset."""
    if STATUS.exists():
        return status("VmHWM")
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def status(field: str) -> int:
    lines = STATUS.read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))


if __name__ == "__main__":
    child(sys.argv[1])
