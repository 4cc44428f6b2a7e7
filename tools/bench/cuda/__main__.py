"""`python -m bench.cuda`: run parts, print figures and targets, write a JSON file."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ssm_kernels import native, native_extension

from .. import machine, store
from ..report import Report
from ..targets import show
from . import cases, conv, diagonal, measure, rates, scan, ssd, step
from .clock import Clock
from .row import COLUMNS, CudaRow
from .subject import Problem
from .targets import TARGETS

Make = Callable[[str, Any, torch.dtype, torch.device], Problem]
PARTS: dict[str, tuple[Make, Mapping[str, object], Mapping[str, object]]] = {
    "scan": (scan.problem, cases.SCANS, cases.SMOKE_SCANS),
    "conv": (conv.problem, cases.CONVS, cases.SMOKE_CONVS),
    "conv-step": (conv.step_problem, cases.CONV_STEPS, cases.SMOKE_CONV_STEPS),
    "ssd": (ssd.problem, cases.SSDS, cases.SMOKE_SSDS),
    "diagonal": (diagonal.problem, cases.DIAGONALS, cases.SMOKE_DIAGONALS),
    "step": (step.problem, cases.STEPS, cases.SMOKE_STEPS),
}
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
PEERS = ("mamba-ssm", "causal-conv1d", "accelerated-scan", "triton")
NO_FIGURES = "SMOKE TEST: tiny sizes on the processor; no figure here says anything about a GPU"


def main() -> int:
    arguments = parse()
    if not arguments.smoke and not torch.cuda.is_available():
        print("error: no CUDA device; --smoke runs tiny sizes on the CPU", file=sys.stderr)
        return 2
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = False
    device = torch.device("cpu" if arguments.smoke else "cuda")
    if arguments.simulator:
        native_extension._on_host = importlib.import_module("ssm_kernels._simulated")
    clock = Clock(device)
    settings = measure.Settings(
        clock, rates.measured(clock), 2 if arguments.smoke else arguments.rounds, arguments.budget
    )
    about = described(arguments, settings)
    for key, value in about.items():
        print(f"{key:11} {value}")
    if arguments.smoke:
        print(NO_FIGURES)
    reports = [run_part(name, arguments, device, settings) for name in arguments.parts]
    content = store.merged(arguments.out, about, reports)
    if not arguments.smoke:
        show(store.rows_of(content), TARGETS)
    if arguments.out:
        store.write(arguments.out, content)
    wrong = [message for report in reports for message in report.failures]
    for message in wrong:
        print(f"error: {message}", file=sys.stderr)
    print(NO_FIGURES if arguments.smoke else "")
    return 1 if wrong else 0


def run_part(
    name: str, arguments: argparse.Namespace, device: torch.device, settings: measure.Settings
) -> Report:
    """All cases of a part that were asked for, in all types."""
    make, real, tiny = PARTS[name]
    report = Report(f"cuda {name}", row_type=CudaRow, columns=COLUMNS)
    start = time.perf_counter()
    for case_name, case in (tiny if arguments.smoke else real).items():
        if arguments.cases and not any(word in case_name for word in arguments.cases):
            continue
        for dtype in arguments.dtypes:
            problem = make(f"{case_name} {dtype}", case, DTYPES[dtype], device)
            measure.run(report, problem, settings)
    print(f"({time.perf_counter() - start:.0f} s)")
    return report


def described(arguments: argparse.Namespace, settings: measure.Settings) -> dict[str, Any]:
    """Machine, versions and command; what the floors are computed with."""
    about = machine.description(sys.argv[1:], arguments.smoke, "bench-cuda", PEERS)
    kernels = "simulator" if arguments.simulator else "CPU"
    gpu: dict[str, Any] = {"device": f"none ({kernels} kernels)"}
    if not arguments.smoke:
        properties = torch.cuda.get_device_properties(0)
        gpu = {
            "device": properties.name,
            "compute": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "gpu_memory_GiB": round(properties.total_memory / 2**30, 1),
            "torch_cuda": torch.version.cuda,
            "kernels": native.cuda_info(),
        }
    return about | gpu | {"rates": asdict(settings.rates), "rounds": settings.rounds}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.cuda", description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--cases", nargs="+", default=[], help="words of names; default all")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--rounds", type=int, default=50, help="runs of each subject")
    parser.add_argument("--budget", type=float, default=5.0, help="seconds for slow peers, a pass")
    parser.add_argument("--out", type=Path, help="JSON file; parts not run now are kept")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes on the CPU: does it run?")
    parser.add_argument(
        "--simulator", action="store_true", help="with --smoke: the CUDA kernels, simulated"
    )
    arguments = parser.parse_args()
    if arguments.simulator and not arguments.smoke:
        parser.error("--simulator needs --smoke")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
