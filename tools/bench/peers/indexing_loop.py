"""The loop most code has today: indexes the steps of (b, d, l) tensors.

Written from Gu & Dao 2023, arXiv:2312.00752, Eq. 2 and Algorithm 2, in the way of the reference
function of the package mamba-ssm; where that package is installed, its own function runs instead.
The gradient of `x[:, :, i]` is a full tensor of zeros per step, so the backward pass is quadratic
in the length.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

import torch
from torch import Tensor


def scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """u, delta (b, d, l), B, C (b, n, l) -> y (b, d, l)."""
    decay = torch.exp(torch.einsum("bdl,dn->bdln", delta, A))
    drive = torch.einsum("bdl,bnl,bdl->bdln", delta, B, u)
    h = torch.zeros_like(decay[:, :, 0])
    outputs = []
    for i in range(u.shape[2]):
        h = decay[:, :, i] * h + drive[:, :, i]
        outputs.append(torch.einsum("bdn,bn->bd", h, C[:, :, i]))
    return torch.stack(outputs, dim=2) + D[:, None] * u


def load() -> Callable[..., Tensor]:
    try:
        module = importlib.import_module("mamba_ssm.ops.selective_scan_interface")
    except (ImportError, OSError, RuntimeError):  # also where its CUDA library does not load
        return scan
    function: Callable[..., Tensor] = module.selective_scan_ref
    return function
