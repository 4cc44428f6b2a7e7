"""Part s4: the convolution kernels of S4D and S4 against PyTorch with a table over all steps.

h channels, n states of which each is one of a conjugate pair (so 2 n states, the N of the papers is
that or n), l steps. For S4 the l nodes are those of a kernel of 2 l steps: real kernels need half
of the roots of unity. Time of one pass, and memory: ours needs O(h l), a table O(h n l).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ssm_kernels import cauchy, log_vandermonde

from . import contest
from .contest import Call, Contest, Entry, Tensors, in_words
from .memory import add
from .options import Options
from .peak import peak_of
from .peers import tables
from .report import OURS, Report
from .timing import Action, both

S4D, S4 = "log_vandermonde", "cauchy"
TABLE = "einsum over the table"
PRODUCTS, JOINED = "products of two tables", "one table of pairs"
#: float32 rounds the angles of the table, ours does not
TOLERANCE = 1e-3


class Size(NamedTuple):
    h: int = 256
    n: int = 64
    l: int = 4096


def run(report: Report, options: Options) -> None:
    size = Size(3, 4, 50) if options.smoke else Size()
    for operator in (S4D, S4):
        one = Contest(
            operator,
            in_words(size),
            tuple(
                Entry(name, partial(call_of, operator, name, size.l)) for name in NAMES[operator]
            ),
            call_of(operator, TABLE, size.l),
            inputs(operator, size),
            inputs(operator, size._replace(h=min(size.h, 8))),
            math.prod(size),
            TOLERANCE,
        )
        contest.run(report, one, options)
        memory(report, operator, size, options)


def inputs(operator: str, size: Size) -> Tensors:
    """Poles of S4D-Lin, step sizes from 1e-3 to 0.1; for S4 also the nodes, without gradient."""
    dt = torch.logspace(-3, -1, size.h).unsqueeze(-1)
    poles = torch.complex(torch.full((size.n,), -0.5), math.pi * torch.arange(float(size.n)))
    v = torch.randn(size.h, size.n, dtype=torch.complex64).requires_grad_()
    w = (dt * poles).requires_grad_()
    if operator == S4D:
        return v, w
    nodes = 2j * torch.tan(torch.arange(size.l, dtype=torch.float64) * (math.pi / (2 * size.l)))
    return v, nodes.to(torch.complex64), w


CALLS: dict[str, dict[str, Callable[..., Tensor]]] = {
    S4D: {
        OURS: log_vandermonde,
        TABLE: tables.vandermonde_table,
        PRODUCTS: tables.vandermonde_products,
    },
    S4: {OURS: cauchy, TABLE: tables.cauchy_table, JOINED: tables.cauchy_joined},
}
NAMES = {operator: tuple(calls) for operator, calls in CALLS.items()}


def call_of(operator: str, name: str, l: int) -> Call:
    """An implementation as a function of `inputs`."""
    call: Call = CALLS[operator][name]
    if operator == S4D:
        return lambda v, x: call(v, x, l)
    return call


def memory(report: Report, operator: str, size: Size, options: Options) -> None:
    names = [name for name in NAMES[operator] if name == OURS or options.wants(name)]
    names = names[:1] if options.smoke else names  # each needs a process of its own
    extra = {
        name: peak_of(
            "s4.one_pass", [operator, name, 2, 2, 8], [operator, name, *size], options.limit_s
        )
        for name in names
    }
    kernel = size.h * size.l * (4 if operator == S4D else 8)
    add(report, operator, extra, kernel + 16 * size.h * size.n)


def one_pass(operator: str, name: str, *sizes: int) -> Action:
    """A forward and backward pass, for the process that measures its memory."""
    size = Size(*sizes)
    tensors: tuple[Tensor, ...] = inputs(operator, size)
    return both(contest.subject(name, call_of(operator, name, size.l), tensors))
