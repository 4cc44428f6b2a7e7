"""Part conv: the causal convolution with SiLU against PyTorch's Conv1d and against a plain sum."""

from __future__ import annotations

from functools import partial

from .compare import PASSES, Comparison, disagreement
from .options import Options
from .ours import conv_subjects
from .report import Report

AGREES = 1e-5


def run(report: Report, options: Options) -> None:
    limits = options.limits()
    for name, shape in options.shapes.items():
        bound_s = partial(limits.conv_s, shape)
        comparison = Comparison(report, name, shape.elements, bound_s, options.budget_s / 2)
        ours, *others = conv_subjects(shape)
        comparison.add_ours(ours)
        for other in others:
            if not options.wants(other.name):
                continue
            error = disagreement(ours, other)
            if not error < AGREES:
                report.fail(f"{other.name}, shape {name}: y differs by {error:.1e}")
            for what in PASSES:
                comparison.add_other(ours, other, what)
