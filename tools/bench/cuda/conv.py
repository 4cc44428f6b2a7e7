"""Causal convolution with SiLU and one step of it: ours, causal-conv1d, PyTorch."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ssm_kernels import (
    causal_conv1d,
    causal_conv1d_reference,
    causal_conv1d_update,
    causal_conv1d_update_reference,
)

from ..peers import torch_conv
from ..report import OURS
from . import floors
from .cases import Conv
from .subject import Problem, Results, Subject, differentiable, doubled, in_place, leaf

DAO, DAO_LAST = "causal-conv1d", "causal-conv1d, (b, l, d)"
PYTORCH, PYTORCH_STEP = "PyTorch, Conv1d", "PyTorch, sum"
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2e-2}


def problem(name: str, case: Conv, dtype: torch.dtype, device: torch.device) -> Problem:
    x = torch.randn(case.b, case.l, case.d, device=device).to(dtype)
    weight = torch.randn(case.d, case.k, device=device).to(dtype) / 2
    leaves = {"x": leaf(x), "weight": leaf(weight)}
    grad_y = torch.randn_like(x)

    def ours(x: Tensor, weight: Tensor) -> Any:
        return causal_conv1d(x, weight, activation="silu")

    return Problem(
        name,
        partial(exact, leaves, grad_y),
        {
            OURS: lambda: differentiable(OURS, lambda: ours(**leaves), leaves, grad_y),
            DAO: lambda: _dao(leaves, grad_y, turned=True),
            DAO_LAST: lambda: _dao(leaves, grad_y, turned=False),
            PYTORCH: lambda: differentiable(
                PYTORCH, lambda: torch_conv.conv(**leaves), leaves, grad_y
            ),
        },
        floors.conv(case, dtype.itemsize),
        case.elements,
        TOLERANCE[dtype],
    )


def exact(leaves: dict[str, Tensor], grad_y: Tensor) -> Results:
    wide = doubled(leaves)

    def call() -> Any:
        return causal_conv1d_reference(wide["x"], wide["weight"], activation="silu")

    return differentiable("exact", call, wide, grad_y.double()).results()


def _dao(leaves: dict[str, Tensor], grad_y: Tensor, turned: bool) -> Subject:
    """Contiguous as (b, d, l), or (b, l, d) seen as (b, d, l)."""
    from causal_conv1d import causal_conv1d_fn

    x, weight = leaves["x"], leaf(leaves["weight"])
    if turned:
        first = leaf(x.transpose(1, 2))
        return differentiable(
            DAO,
            lambda: causal_conv1d_fn(first, weight, activation="silu"),
            {"x": first, "weight": weight},
            grad_y.transpose(1, 2).contiguous(),
            turned=True,
        )
    return differentiable(
        DAO_LAST,
        lambda: causal_conv1d_fn(x.transpose(1, 2), weight, activation="silu").transpose(1, 2),
        {"x": x, "weight": weight},
        grad_y,
    )


def step_problem(name: str, case: Conv, dtype: torch.dtype, device: torch.device) -> Problem:
    x = torch.randn(case.b, case.d, device=device).to(dtype)
    weight = torch.randn(case.d, case.k, device=device).to(dtype) / 2
    state = torch.randn(case.b, case.d, case.k - 1, device=device).to(dtype)

    def exact() -> Results:
        fresh = state.double()
        y = causal_conv1d_update_reference(x.double(), fresh, weight.double(), activation="silu")
        return {"y": y, "state": fresh}

    def ours(state: Tensor) -> Tensor:
        return causal_conv1d_update(x, state, weight, activation="silu")

    def pytorch(state: Tensor) -> Tensor:
        samples = torch.cat((state, x.unsqueeze(2)), 2)
        state.copy_(samples[..., 1:])
        return F.silu((samples * weight).sum(2))

    def dao() -> Subject:
        from causal_conv1d import causal_conv1d_update as update

        return in_place(DAO, state, lambda state: update(x, state, weight, None, "silu"))

    return Problem(
        name,
        exact,
        {
            OURS: lambda: in_place(OURS, state, ours),
            DAO: dao,
            PYTORCH_STEP: lambda: in_place(PYTORCH_STEP, state, pytorch),
        },
        floors.conv_step(case, dtype.itemsize),
        case.elements,
        TOLERANCE[dtype],
    )
