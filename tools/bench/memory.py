"""Part memory: the most memory a forward and backward pass needs beyond its inputs.

Gradients and y count: they are the least a pass can need, and the "limit" here.
"""

from __future__ import annotations

import torch

from .cases import Shape, scan_inputs
from .options import Options
from .ours import scan_subject
from .peak import peak_of
from .peers import SCAN_PEERS
from .report import OURS, Report
from .timing import Action, both

# The loop by indexing and the fallback of transformers take minutes on most shapes.
PEERS = ("mambapy pscan", "loop, unbind")
WARM = Shape(1, 8, 16, 4)


def run(report: Report, options: Options) -> None:
    names = options.shape_names[:1] if options.smoke else options.shape_names
    for name in names:
        shape = options.shapes[name]
        least = 4 * (3 * shape.elements + 2 * shape.b * shape.l * shape.n)
        extra = {
            subject: peak_of(
                "memory.one_pass", [subject, *WARM], [subject, *shape], options.limit_s
            )
            for subject in (OURS, *filter(options.wants, PEERS))
        }
        add(report, name, extra, least)


def add(report: Report, case: str, extra: dict[str, float | str], least: int) -> None:
    """Add a row per subject with its bytes, or why it has none; `least`: bytes of the results."""
    ours = extra[OURS]
    for subject, value in extra.items():
        if isinstance(value, str) or isinstance(ours, str):
            report.add(case, "extra memory", subject, None, unit="B", note=str(value))
            continue
        report.add(
            case,
            "extra memory",
            subject,
            value,
            unit="B",
            runs=1,
            of_limit=least / value if value else None,
            ratio=value / ours if ours else None,
        )


def one_pass(subject: str, *sizes: int) -> Action:
    inputs = scan_inputs(Shape(*sizes))
    grad_y = torch.randn_like(inputs.u)
    if subject == OURS:
        return both(scan_subject(inputs, grad_y))
    peer = next(peer for peer in SCAN_PEERS if peer.name == subject)
    return both(peer.subject(inputs, grad_y))
