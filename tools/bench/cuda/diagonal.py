"""The diagonal scan h = a h + u: ours, accelerated-scan, PyTorch."""

from __future__ import annotations

import importlib
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ssm_kernels import diagonal_scan, diagonal_scan_reference

from ..report import OURS
from . import floors
from .cases import Diagonal
from .subject import Problem, Results, Subject, differentiable, doubled, leaf

WARP, TRITON = "accelerated-scan, warp", "accelerated-scan, Triton"
PYTORCH = "PyTorch, loop"
#: accelerated-scan keeps its state in the type of the tensors: in bfloat16 it is compared loosely
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 5e-2}


def problem(name: str, case: Diagonal, dtype: torch.dtype, device: torch.device) -> Problem:
    sizes = (case.b, case.l, case.d)
    leaves = {
        "a": leaf((0.9 + 0.1 * torch.rand(sizes, device=device)).to(dtype)),
        "u": leaf(torch.randn(sizes, device=device).to(dtype)),
    }
    grad_y = torch.randn(sizes, device=device).to(dtype)

    def ours() -> Any:
        return diagonal_scan(leaves["a"], leaves["u"])

    def loop() -> Any:
        return diagonal_scan_reference(leaves["a"], leaves["u"])

    return Problem(
        name,
        partial(exact, leaves, grad_y),
        {
            OURS: lambda: differentiable(OURS, ours, leaves, grad_y),
            WARP: lambda: _accelerated(WARP, "warp", leaves, grad_y),
            TRITON: lambda: _accelerated(TRITON, "scalar", leaves, grad_y),
            PYTORCH: lambda: differentiable(PYTORCH, loop, leaves, grad_y, slow=True),
        },
        floors.diagonal(case, dtype.itemsize),
        case.elements,
        TOLERANCE[dtype],
    )


def exact(leaves: dict[str, Tensor], grad_y: Tensor) -> Results:
    wide = doubled(leaves)

    def call() -> Any:
        return diagonal_scan_reference(wide["a"], wide["u"])

    return differentiable("exact", call, wide, grad_y.double()).results()


def _accelerated(name: str, module: str, leaves: dict[str, Tensor], grad_y: Tensor) -> Subject:
    """It wants (b, d, l); `warp`, which nvcc compiles at the first import, a power of two of l."""
    scan: Any = importlib.import_module(f"accelerated_scan.{module}").scan
    turned = {name: leaf(x.transpose(1, 2)) for name, x in leaves.items()}
    turned_grad = grad_y.transpose(1, 2).contiguous()
    return differentiable(
        name, lambda: scan(turned["a"], turned["u"]), turned, turned_grad, turned=True
    )
