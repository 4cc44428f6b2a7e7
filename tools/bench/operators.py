"""Time the operators on this machine: `make bench`, options with ARGS="--shapes A B --json FILE".

One process, float32, n = 16 states, convolution of width 4 with SiLU. Each figure is the median of
the repeats after one warm-up. A state-step is one update of one state of one channel.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssm_core.train.folder import processor
from ssm_kernels import causal_conv1d, native, selective_scan

SHAPES = {  # (b, d, l): MNIST, small images, CIFAR, Vim tiny, a language model, one long sequence
    "A": (64, 128, 49),
    "B": (128, 512, 64),
    "C": (32, 512, 256),
    "D": (8, 384, 197),
    "E": (1, 1536, 2048),
    "F": (1, 256, 16384),
}
N_STATES = 16
WIDTH = 4
BACKENDS = ("cpu", "reference")
Call = Callable[[str], Tensor]  # backend -> y


def scan_call(b: int, d: int, l: int) -> tuple[Call, list[Tensor]]:
    u, delta = torch.randn(b, l, d), torch.rand(b, l, d) * 0.1
    A = -torch.arange(1.0, N_STATES + 1).repeat(d, 1)
    B, C = torch.randn(b, l, N_STATES), torch.randn(b, l, N_STATES)
    D = torch.ones(d)
    inputs = [x.requires_grad_() for x in (u, delta, A, B, C, D)]

    def call(backend: str) -> Tensor:
        y = selective_scan(u, delta, A, B, C, D, backend=backend)
        assert isinstance(y, Tensor)
        return y

    return call, inputs


def conv_call(b: int, d: int, l: int) -> tuple[Call, list[Tensor]]:
    x = torch.randn(b, l, d, requires_grad=True)
    weight = torch.randn(d, WIDTH, requires_grad=True)

    def call(backend: str) -> Tensor:
        y = causal_conv1d(x, weight, activation="silu", backend=backend)
        assert isinstance(y, Tensor)
        return y

    return call, [x, weight]


def median_s(action: Callable[[], object], repeats: int) -> float:
    """Median duration in seconds of `action()`, after one run that is not counted."""
    durations = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        action()
        durations.append(time.perf_counter() - started)
    return statistics.median(durations[1:])


def measure(call: Call, inputs: list[Tensor], backend: str, repeats: int) -> tuple[float, float]:
    """Seconds of the forward pass without a graph, and of forward and backward together."""

    def forward() -> None:
        with torch.no_grad():
            call(backend)

    grad = torch.ones_like(inputs[0])

    def both() -> None:
        torch.autograd.grad(call(backend), inputs, grad)

    return median_s(forward, repeats), median_s(both, repeats)


def rows(shapes: list[str], backends: list[str], repeats: int) -> list[dict[str, Any]]:
    """Measure everything, printing each line of the table as soon as it is known."""
    print("operator        shape  backend    forward ms  forward+backward ms   forward G/s")
    found = []
    for name in shapes:
        b, d, l = SHAPES[name]
        for operator, make in (("selective_scan", scan_call), ("causal_conv1d", conv_call)):
            call, inputs = make(b, d, l)
            work = b * d * l * (N_STATES if operator == "selective_scan" else 1)
            for backend in backends:
                forward, both = measure(call, inputs, backend, repeats)
                rate = work / forward / 1e9
                print(
                    f"{operator:15} {name:5}  {backend:9} {forward * 1e3:11.2f}"
                    f" {both * 1e3:20.2f} {rate:13.3f}",
                    flush=True,
                )
                found.append(
                    {
                        "operator": operator,
                        "shape": {"b": b, "d": d, "l": l},
                        "backend": backend,
                        "forward_s": forward,
                        "forward_backward_s": both,
                        "forward_rate": rate * 1e9,
                    }
                )
    print("G/s: 1e9 state-steps per second for selective_scan, 1e9 outputs for causal_conv1d")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["A", "B", "D"])
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=list(BACKENDS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    machine = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "ssm-kernels": version("ssm-kernels"),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": options.threads,
        "isa": native.isa() if native.AVAILABLE else "none",
    }
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    result = rows(options.shapes, options.backends, options.repeats)
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "rows": result}, indent=2) + "\n")


if __name__ == "__main__":
    main()
