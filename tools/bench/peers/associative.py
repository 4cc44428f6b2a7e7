"""`torch.compile` of PyTorch's own associative_scan (a prototype operator of PyTorch)."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import torch
from torch import Tensor

Pair = tuple[Tensor, Tensor]


def load() -> Callable[..., Tensor]:
    module = importlib.import_module("torch._higher_order_ops.associative_scan")
    associative_scan = module.associative_scan

    def compose(first: Pair, second: Pair) -> Pair:
        return first[0] * second[0], second[0] * first[1] + second[1]

    def scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
        """(b, l, d) in and out."""
        decay = torch.exp(delta.unsqueeze(-1) * A)
        drive = (delta * u).unsqueeze(-1) * B.unsqueeze(2)
        pair = (decay, drive)
        states = associative_scan(compose, pair, dim=1, combine_mode="generic")[1]
        return (states * C.unsqueeze(2)).sum(-1) + D * u

    return torch.compile(scan, dynamic=False)
