"""`python -m bench.cuda.tiny`: every operator on tiny odd sizes, for compute-sanitizer.

Each result is compared with float64 and computed three times, which has to give the same bits.
`--only-run` leaves the comparison out: under a sanitizer only our kernels are of interest.
"""

from __future__ import annotations

import argparse
import sys

import torch

from ..report import OURS
from .__main__ import DTYPES, PARTS
from .cases import Conv, Diagonal, Scan, Ssd, Step
from .measure import errors_of, unequal_repeats
from .subject import Problem

TINY: dict[str, tuple[object, ...]] = {
    "scan": (
        Scan(1, 128, 70),
        Scan(2, 33, 19, 5, gate=False),
        Scan(1, 64, 65, 8),
        Scan(1, 64, 130, 1, gate=False, groups=4),
        Scan(1, 64, 33, 64),
        Scan(1, 8, 1),
    ),
    "conv": (Conv(1, 64, 70), Conv(2, 13, 9, 3), Conv(1, 1, 1, 8)),
    "conv-step": (Conv(2, 64, 1), Conv(3, 13, 1, 2)),
    "ssd": (Ssd(1, 70, 2), Ssd(2, 19, 3, 8, 16)),
    "diagonal": (Diagonal(1, 64, 130), Diagonal(2, 7, 33)),
    "step": (Step(2, 64), Step(3, 7, 5)),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.cuda.tiny", description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only-run", action="store_true")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    faults = 0
    for part in arguments.parts:
        for case in TINY[part]:
            for name, dtype in DTYPES.items():
                make = PARTS[part][0]
                problem = make(f"{case} {name}", case, dtype, torch.device(arguments.device))
                faults += checked(problem, arguments.only_run)
    print(f"{faults} faults")
    return 1 if faults else 0


def checked(problem: Problem, only_run: bool) -> bool:
    """Whether something is wrong; prints a line."""
    try:
        subject = problem.subjects[OURS]()
    except ImportError as missing:
        print(f"{problem.name}: {missing}")
        return False
    unequal = unequal_repeats(subject)
    errors = {} if only_run else errors_of(subject.results(), problem.exact())
    wrong = {name: error for name, error in errors.items() if not error <= problem.tolerance}
    verdict = f"WRONG: {unequal} unequal, errors {wrong}" if unequal or wrong else "right"
    print(f"{problem.name}: {verdict}", flush=True)
    return bool(unequal or wrong)


if __name__ == "__main__":
    sys.exit(main())
