"""The scan of Mamba-2: ours, mamba-ssm's Triton kernels, PyTorch."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..report import OURS
from . import floors
from .cases import Ssd
from .subject import Problem, Results, Subject, differentiable, doubled, leaf

TRITON, PYTORCH = "mamba-ssm, Triton", "PyTorch, loop"
PER_HEAD, SHARED = ("A", "D", "dt_bias"), ("B", "C")
HEADS = 16  # computed at a time in float64
TRITON_CHUNK = 256  # its default
TOLERANCE = {torch.float32: 2e-3, torch.bfloat16: 3e-2}  # products in TF32 and bfloat16


def problem(name: str, case: Ssd, dtype: torch.dtype, device: torch.device) -> Problem:
    b, l, h, p, n = case.b, case.l, case.h, case.p, case.n
    random = partial(torch.randn, device=device)
    leaves = {
        "x": leaf(random(b, l, h, p).to(dtype)),
        "dt": leaf((0.5 * random(b, l, h)).to(dtype)),
        "A": leaf(-torch.linspace(1, 16, h, device=device)),
        "B": leaf(random(b, l, case.groups, n).to(dtype)),
        "C": leaf(random(b, l, case.groups, n).to(dtype)),
        "D": leaf(random(h)),
        "dt_bias": leaf(random(h) - 4),
    }
    grad_y = random(b, l, h, p).to(dtype)
    return Problem(
        name,
        partial(exact, leaves, grad_y),
        {
            OURS: lambda: _own(OURS, leaves, grad_y, "auto"),
            TRITON: lambda: _triton(leaves, grad_y),
            PYTORCH: lambda: _own(PYTORCH, leaves, grad_y, "reference"),
        },
        floors.ssd(case, dtype.itemsize),
        case.elements * n,
        TOLERANCE[dtype],
    )


def exact(leaves: dict[str, Tensor], grad_y: Tensor) -> Results:
    """One sequence and a few heads at a time: the loop keeps every state for the gradients."""
    b, _, h, _ = grad_y.shape
    if leaves["B"].shape[2] != 1:
        raise NotImplementedError("all heads have to share B and C")
    sequences = []
    for i in range(b):
        parts = [_exact(leaves, grad_y, i, slice(j, j + HEADS)) for j in range(0, h, HEADS)]
        sequences.append({name: _joined(name, [part[name] for part in parts]) for name in parts[0]})
    return {
        name: sum((s[name] for s in sequences[1:]), start=sequences[0][name])
        if name.removeprefix("grad ") in PER_HEAD
        else torch.cat([s[name] for s in sequences])
        for name in sequences[0]
    }


def _exact(leaves: dict[str, Tensor], grad_y: Tensor, i: int, heads: slice) -> Results:
    def cut(name: str, x: Tensor) -> Tensor:
        if name in PER_HEAD:
            return x[heads]
        return x[i : i + 1] if name in SHARED else x[i : i + 1, :, heads]

    part = doubled({name: cut(name, x) for name, x in leaves.items()})
    return _own("exact", part, cut("y", grad_y).double(), "reference").results()


def _joined(name: str, parts: list[Tensor]) -> Tensor:
    """One result of all heads: B and C feed every head, the others belong to one."""
    if name.removeprefix("grad ") in SHARED:
        return torch.stack(parts).sum(0)
    return torch.cat(parts, 0 if name.removeprefix("grad ") in PER_HEAD else 2)


def _own(name: str, leaves: dict[str, Tensor], grad_y: Tensor, backend: str) -> Subject:
    import ssm_kernels

    ssd_scan: Any = getattr(ssm_kernels, "ssd_scan", None)
    if ssd_scan is None:
        raise ImportError("this version of ssm-kernels has no ssd_scan")

    def call() -> Any:
        return ssd_scan(**leaves, dt_softplus=True, backend=backend)

    return differentiable(name, call, leaves, grad_y, slow=backend == "reference")


def _triton(leaves: dict[str, Tensor], grad_y: Tensor) -> Subject:
    from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined

    def call() -> Any:
        return mamba_chunk_scan_combined(**leaves, chunk_size=TRITON_CHUNK, dt_softplus=True)

    return differentiable(TRITON, call, leaves, grad_y)
