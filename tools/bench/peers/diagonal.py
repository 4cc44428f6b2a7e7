"""The diagonal scan h[t] = a h[t-1] + u[t] in plain PyTorch: a (p,), u (b, l, p), complex or real.

An associative operator on pairs, (a, u) then (a', u') = (a a', a' u + u'), lets all prefixes be
computed in a number of operations on tensors that grows with log l: Blelloch 1990, CMU-CS-90-190;
Smith et al. 2023, arXiv:2208.04933, Appendix H.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ssm_kernels import diagonal_scan_reference

Pair = tuple[Tensor, Tensor]
Scan = Callable[[Tensor, Tensor], Tensor]


def loop(a: Tensor, u: Tensor) -> Tensor:
    """Step by step, the steps taken apart with `unbind`."""
    h = diagonal_scan_reference(a, u)
    assert isinstance(h, Tensor)
    return h


def compose(first: Pair, second: Pair) -> Pair:
    return first[0] * second[0], second[0] * first[1] + second[1]


def scan_of_pairs(a: Tensor, u: Tensor) -> Tensor:
    """Prefixes of pairs by halves, as S5 does it: O(l) work in 2 log l rounds."""
    return _prefixes((a.expand(u.shape), u))[1]


def _prefixes(pair: Pair) -> Pair:
    steps = pair[0].shape[1]
    if steps < 2:
        return pair
    even, odd = ((pair[0][:, i::2], pair[1][:, i::2]) for i in (0, 1))
    cut = steps // 2
    at_odd = _prefixes(compose((even[0][:, :cut], even[1][:, :cut]), odd))
    before = steps - 1 - cut  # even steps that have an odd one before
    later = compose(
        (at_odd[0][:, :before], at_odd[1][:, :before]), (even[0][:, 1:], even[1][:, 1:])
    )
    at_even = [torch.cat([e[:, :1], x], 1) for e, x in zip(even, later, strict=True)]
    return (_interleave(at_even[0], at_odd[0]), _interleave(at_even[1], at_odd[1]))


def _interleave(even: Tensor, odd: Tensor) -> Tensor:
    """(b, m or m + 1, p) and (b, m, p) in turns along the steps."""
    m = odd.shape[1]
    both = torch.stack([even[:, :m], odd], 2).flatten(1, 2)
    return both if even.shape[1] == m else torch.cat([both, even[:, m:]], 1)


def doubling(a: Tensor, u: Tensor) -> Tensor:
    """Add what is 1, 2, 4, ... steps before, times a to that power: O(l log l) work.

    Takes advantage of a that is the same at all steps: no pairs, its powers are (p,).
    """
    h, shift = u, 1
    while shift < u.shape[1]:
        h = h + F.pad(a * h[:, :-shift], (0, 0, shift, 0))
        a, shift = a * a, 2 * shift
    return h


def load_associative(compiled: bool) -> Scan:
    """PyTorch's own associative_scan, a prototype; it compiles complex numbers from torch 2.15."""
    module = importlib.import_module("torch._higher_order_ops.associative_scan")
    associative_scan = module.associative_scan

    def scan(a: Tensor, u: Tensor) -> Tensor:
        # clone: it refuses tensors that share memory
        pair = (a.expand(u.shape).clone(), u)
        h: Tensor = associative_scan(compose, pair, dim=1, combine_mode="generic")[1]
        return h

    return torch.compile(scan, dynamic=False) if compiled else scan
