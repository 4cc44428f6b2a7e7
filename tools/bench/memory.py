"""Part memory: the most memory a forward and backward pass needs beyond its inputs.

Each case runs in a process of its own that notes its resident memory once the inputs exist, resets
the kernel's record of the peak, and reads the peak after the pass. Gradients and y count: they are
the least a pass can need, and the "limit" here.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import torch

from .cases import Shape, scan_inputs
from .options import Options
from .ours import scan_subject
from .peers import SCAN_PEERS
from .report import OURS, Report
from .timing import Action, both

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
# The loop by indexing and the fallback of transformers take minutes on most shapes.
PEERS = ("mambapy pscan", "loop, unbind")


def run(report: Report, options: Options) -> None:
    names = options.shape_names[:1] if options.smoke else options.shape_names
    for name in names:
        shape = options.shapes[name]
        least = 4 * (3 * shape.elements + 2 * shape.b * shape.l * shape.n)
        ours = measured(OURS, shape, options)
        for subject in (OURS, *filter(options.wants, PEERS)):
            extra = ours if subject == OURS else measured(subject, shape, options)
            if isinstance(extra, str) or isinstance(ours, str):
                report.add(name, "extra memory", subject, None, unit="B", note=str(extra))
                continue
            report.add(
                name,
                "extra memory",
                subject,
                extra,
                unit="B",
                runs=1,
                of_limit=least / extra if extra else None,
                ratio=extra / ours if ours else None,
            )


def measured(subject: str, shape: Shape, options: Options) -> float | str:
    """Extra bytes of one pass in a new process, or why it has none."""
    case = json.dumps([subject, *shape, torch.get_num_threads()])
    tools = str(Path(__file__).resolve().parents[1])
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "bench.memory", case],
            env={**os.environ, "PYTHONPATH": tools},
            capture_output=True,
            text=True,
            timeout=2 * options.limit_s + 30,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "took too long"
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["failed"])[-1][:120]
    return float(done.stdout)


def child(case: str) -> None:
    subject, *sizes, threads = json.loads(case)
    torch.set_num_threads(threads)
    one_pass(subject, Shape(1, 8, 16, 4))()  # libraries are loaded, threads started
    action = one_pass(subject, Shape(*sizes))
    before = resident_now()
    if os.access(CLEAR, os.W_OK):
        CLEAR.write_text("5")  # the peak starts anew
    action()
    print(max(peak() - before, 0))


def one_pass(subject: str, shape: Shape) -> Action:
    inputs = scan_inputs(shape)
    grad_y = torch.randn_like(inputs.u)
    if subject == OURS:
        return both(scan_subject(inputs, grad_y))
    peer = next(peer for peer in SCAN_PEERS if peer.name == subject)
    return both(peer.subject(inputs, grad_y))


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
