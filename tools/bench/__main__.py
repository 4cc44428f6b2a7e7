"""`python -m bench`: run parts, print their figures, the targets they are held to, write files."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from . import (
    accuracy,
    conv,
    decode,
    language,
    latency,
    limits,
    mamba2,
    memory,
    models,
    plots,
    s4,
    s5,
    scan,
    ss2d,
    store,
    sweep,
    targets,
    variants,
)
from .cases import SHAPES, Shape, scan_inputs
from .machine import description
from .options import Options
from .ours import scan_subject
from .report import Report
from .timing import both

PARTS: dict[str, Callable[[Report, Options], None]] = {
    "limits": lambda report, options: limits.run(report, options.loop_s),
    "scan": scan.run,
    "variants": variants.run,
    "conv": conv.run,
    "models": models.run,
    "memory": memory.run,
    "accuracy": accuracy.run,
    "sweep": sweep.run,
    "s4": s4.run,
    "s5": s5.run,
    "mamba2": mamba2.run,
    "ss2d": ss2d.run,
    "latency": latency.run,
    "decode": decode.run,
    "language": language.run,
}


def main() -> int:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    machine = description(sys.argv[1:], arguments.smoke)
    for key, value in machine.items():
        print(f"{key:11} {value}")
    options = Options(
        tuple(arguments.shapes),
        tuple(arguments.peers),
        0.01 if arguments.smoke else arguments.budget,
        arguments.limit,
        arguments.smoke,
    )
    warm_up()
    reports: list[Report] = []
    for part in arguments.parts:
        start = time.perf_counter()
        reports.append(Report(part))
        PARTS[part](reports[-1], options)
        print(f"({time.perf_counter() - start:.0f} s)")
    return finish(arguments, machine, reports)


def warm_up() -> None:
    """Let torch start its threads and libraries: half a second that belongs to no figure."""
    inputs = scan_inputs(Shape(2, 16, 16))
    both(scan_subject(inputs, torch.randn_like(inputs.u)))()


def finish(arguments: argparse.Namespace, machine: dict[str, Any], reports: list[Report]) -> int:
    """Write the files, show the targets; 1 if a result was wrong or the gate is not passed."""
    content = store.merged(arguments.json, machine, reports)
    rows = store.rows_of(content)
    # the figures of a smoke test mean nothing
    failed = [] if arguments.smoke else targets.show(rows)
    if arguments.json:
        store.write(arguments.json, content)
    if arguments.plots:
        plots.draw(rows, arguments.plots)
    wrong = [message for report in reports for message in report.failures]
    for message in wrong:
        print(f"error: {message}", file=sys.stderr)
    if arguments.gate and failed:
        print(f"error: gate not passed: {'; '.join(failed)}", file=sys.stderr)
        return 1
    return 1 if wrong else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--peers", nargs="+", default=[], help="words of names; default all")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--budget", type=float, default=6.0, help="seconds per comparison")
    parser.add_argument("--limit", type=float, default=60.0, help="longest run of a peer, seconds")
    parser.add_argument("--json", type=Path, help="write figures; parts not run now are kept")
    parser.add_argument("--plots", type=Path, help="folder for pictures (needs matplotlib)")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: does everything run?")
    parser.add_argument(
        "--gate", action="store_true", help="exit with 1 if a ratio is below half of its target"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
