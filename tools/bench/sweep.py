"""Part sweep: time against length and against channels, for the pictures."""

from __future__ import annotations

import torch

from .cases import Shape, Subject, scan_inputs
from .compare import ACTIONS, add_times
from .options import Options
from .ours import conv_subjects, scan_subject
from .peers import SCAN_PEERS
from .report import OURS, Report
from .timing import Times, alternate

LENGTHS = (64, 256, 1024, 4096, 16384)
CHANNELS = (64, 128, 256, 512, 1024, 2048)
LONG_OF = Shape(1, 256, 0)  # what is swept by length
WIDE_OF = Shape(1, 0, 1024)
PEERS = ("loop, unbind", "mambapy pscan")
WHAT = "forward+backward"


def run(report: Report, options: Options) -> None:
    count = 2 if options.smoke else None
    for l in LENGTHS[:count]:
        point(report, options, f"length {l}", LONG_OF._replace(l=l))
    for d in CHANNELS[:count]:
        point(report, options, f"channels {d}", WIDE_OF._replace(d=d))


def point(report: Report, options: Options, case: str, shape: Shape) -> None:
    limits = options.limits()
    inputs = scan_inputs(shape)
    grad_y = torch.randn_like(inputs.u)
    subjects = [scan_subject(inputs, grad_y)]
    for peer in SCAN_PEERS:
        if peer.name in PEERS and options.wants(peer.name):
            try:
                subjects.append(peer.subject(inputs, grad_y))
            except ImportError as error:
                note = f"not installed ({error})"
                report.add(f"scan, {case}", WHAT, peer.name, None, note=note)
    add(report, f"scan, {case}", subjects, limits.scan_s(shape, WHAT), options)

    add(report, f"conv, {case}", conv_subjects(shape), limits.conv_s(shape, WHAT), options)


def add(
    report: Report, case: str, subjects: list[Subject], limit_s: float, options: Options
) -> None:
    times: dict[str, Times] = alternate(
        {subject.name: ACTIONS[WHAT](subject) for subject in subjects}, options.budget_s / 2
    )
    for name, t in times.items():
        ratio = t.median / times[OURS].median
        add_times(report, case, WHAT, name, t, of_limit=limit_s / t.median, ratio=ratio)
    report.add(case, WHAT, "limit", limit_s)
