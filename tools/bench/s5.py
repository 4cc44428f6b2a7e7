"""Part s5: the diagonal scan of S5, complex, its factors constant in time, against PyTorch."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ssm_kernels import diagonal_scan

from . import contest
from .contest import Contest, Entry, Tensors, in_words
from .options import Options
from .peers import diagonal
from .report import OURS, Report

LOOP, PAIRS, DOUBLING = "loop, unbind", "scan of pairs", "doubling"
ASSOCIATIVE, COMPILED = "associative_scan", "compiled associative_scan"
#: formulations that are not a loop over the steps
PARALLEL = (PAIRS, DOUBLING, ASSOCIATIVE, COMPILED)
TOLERANCE = 1e-4


class Size(NamedTuple):
    b: int = 16
    l: int = 4096
    p: int = 256


def run(report: Report, options: Options) -> None:
    size = Size(2, 37, 5) if options.smoke else Size()
    entries = (
        Entry(OURS, lambda: ours),
        Entry(LOOP, lambda: diagonal.loop),
        Entry(PAIRS, lambda: diagonal.scan_of_pairs),
        Entry(DOUBLING, lambda: diagonal.doubling),
        Entry(ASSOCIATIVE, partial(diagonal.load_associative, compiled=False)),
        Entry(COMPILED, partial(diagonal.load_associative, compiled=True), compiled=True),
    )
    one = Contest(
        "diagonal_scan",
        in_words(size),
        entries,
        diagonal.loop,
        inputs(size),
        inputs(size._replace(b=1, p=min(size.p, 32))),
        math.prod(size),
        TOLERANCE,
    )
    contest.run(report, one, options)


def ours(a: Tensor, u: Tensor) -> Tensor:
    h = diagonal_scan(a, u)
    assert isinstance(h, Tensor)
    return h


def inputs(size: Size) -> Tensors:
    """a (p,) = exp(dt Lambda), dt from 1e-3 to 0.1, Lambda as in S4D-Lin; u (b, l, p)."""
    dt = torch.logspace(-3, -1, size.p)
    poles = torch.complex(torch.full((size.p,), -0.5), math.pi * torch.arange(float(size.p)))
    u = torch.randn(size.b, size.l, size.p, dtype=torch.complex64)
    return torch.exp(dt * poles).requires_grad_(), u.requires_grad_()
