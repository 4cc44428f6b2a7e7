"""The reference of ssm-kernels: a loop over steps taken apart with `unbind`. Plain and compiled."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ssm_kernels import selective_scan_reference


def scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """(b, l, d) in and out."""
    y = selective_scan_reference(u, delta, A, B, C, D)
    assert isinstance(y, Tensor)
    return y


def load() -> Callable[..., Tensor]:
    return scan


def load_compiled() -> Callable[..., Tensor]:
    """The loop is unrolled: compiling takes minutes where there are many steps."""
    return torch.compile(scan, dynamic=False)
