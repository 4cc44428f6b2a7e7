"""The inside of a Mamba block, one way and both ways, against its parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shim_cases import close, gradients, leaves, silu, slow_scan
from torch import Tensor
from torch.nn import functional as F

from ssm_kernels.compat.bimamba_inner import bimamba_inner_fn, bimamba_inner_ref
from ssm_kernels.compat.mamba_inner import (
    mamba_inner_fn,
    mamba_inner_fn_no_out_proj,
    mamba_inner_ref,
)
from ssm_kernels.compat.selective_scan import ScanTensors

B_, D_, L_, N_, R_, K_, M_ = 2, 4, 5, 3, 2, 4, 6


@dataclass(frozen=True)
class Variant:
    is_complex: bool = False
    has_bias: bool = True
    constant_B: bool = False
    softplus: bool = True


def arguments(variant: Variant) -> dict[str, Any]:
    torch.manual_seed(5)
    width = N_ * (2 if variant.is_complex else 1)
    rows = R_ + (1 if variant.constant_B else 2) * width
    A = -torch.rand(D_, N_).double() - 0.1
    if variant.is_complex:
        A = torch.complex(A, torch.randn(D_, N_).double())
    found = {
        "xz": torch.randn(B_, 2 * D_, L_),
        "conv1d_weight": torch.randn(D_, 1, K_),
        "conv1d_bias": torch.randn(D_) if variant.has_bias else None,
        "x_proj_weight": torch.randn(rows, D_) * 0.5,
        "delta_proj_weight": torch.randn(D_, R_) * 0.5,
        "out_proj_weight": torch.randn(M_, D_),
        "out_proj_bias": torch.randn(M_) if variant.has_bias else None,
        "A": A,
        "A_b": A * 1.5,
        "B": torch.randn(D_, N_, dtype=A.dtype) if variant.constant_B else None,
        "D": torch.randn(D_),
        "delta_bias": torch.rand(D_),
        "C_proj_bias": torch.randn(width) if variant.has_bias else None,
    }
    return {
        name: value.double() if value is not None and not value.is_complex() else value
        for name, value in found.items()
    }


def slow_inner(a: dict[str, Any], softplus: bool) -> tuple[Tensor, Tensor]:
    """Return y of the forward scan and of the backward scan, (b, d, l), gated."""
    x, z = a["xz"].split(D_, 1)
    u = F.conv1d(F.pad(x, (K_ - 1, 0)), a["conv1d_weight"], a["conv1d_bias"], groups=D_)
    u = silu(u)
    rows = torch.einsum("rd,bdl->brl", a["x_proj_weight"], u)
    width = N_ * (2 if a["A"].is_complex() else 1)
    delta = torch.einsum("dr,brl->bdl", a["delta_proj_weight"], rows[:, :R_])
    B, C = rows[:, R_ : R_ + width], rows[:, -width:]
    if a["C_proj_bias"] is not None:
        C = C + a["C_proj_bias"][:, None]
    if a["A"].is_complex():  # the rows (n, re/im) become (n, (l, re/im))
        B, C = (M.view(B_, N_, 2, L_).transpose(2, 3).reshape(B_, N_, -1) for M in (B, C))
    B = B if a["B"] is None else a["B"]

    def turned(M: Tensor) -> Tensor:
        if M.dim() == 2:
            return M
        if a["A"].is_complex() and M.shape[-1] == 2 * L_:
            return M.view(B_, N_, L_, 2).flip(2).reshape(B_, N_, -1)
        return M.flip(-1)

    forwards = ScanTensors(u, delta, a["A"], B, C, a["D"], z, a["delta_bias"])
    back = ScanTensors(
        *(turned(u), turned(delta), a["A_b"], turned(B), turned(C), a["D"], turned(z)),
        a["delta_bias"],
    )
    return slow_scan(forwards, softplus)[0], slow_scan(back, softplus)[0].flip(-1)


def slow_block(a: dict[str, Any], softplus: bool, both: bool) -> Tensor:
    forwards, back = slow_inner(a, softplus)
    y = forwards + back if both else forwards
    out = torch.einsum("md,bdl->blm", a["out_proj_weight"], y)
    return out if a["out_proj_bias"] is None else out + a["out_proj_bias"]


@given(st.builds(Variant, *(st.booleans() for _ in range(4))))
@settings(max_examples=10, deadline=None)
@pytest.mark.parametrize(
    ("function", "both"),
    [
        (mamba_inner_fn, False),
        (mamba_inner_ref, False),
        (bimamba_inner_fn, True),
        (bimamba_inner_ref, True),
    ],
)
def test_values_and_gradients(function: Any, both: bool, variant: Variant) -> None:
    given_arguments = arguments(variant)
    mine = dict(zip(given_arguments, leaves(tuple(given_arguments.values())), strict=True))
    slow = dict(zip(given_arguments, leaves(tuple(given_arguments.values())), strict=True))
    kept = {name: value for name, value in mine.items() if both or name != "A_b"}
    y = function(**kept, delta_softplus=variant.softplus)
    expected = slow_block(slow, variant.softplus, both)
    close(y, expected)
    cotangent = torch.randn_like(expected)
    for got, wanted in zip(
        gradients(y, list(mine.values()), cotangent),
        gradients(expected, list(slow.values()), cotangent),
        strict=True,
    ):
        assert (got is None) == (wanted is None)
        if got is not None:
            close(got, wanted, 1e-8)


def test_without_the_last_projection() -> None:
    a = arguments(Variant())
    kept = {k: v for k, v in a.items() if k != "A_b" and not k.startswith("out_proj")}
    y = mamba_inner_fn_no_out_proj(**kept)
    assert y.is_contiguous()
    close(y, slow_inner(a, True)[0])


def test_norms_of_step_size_and_projections() -> None:
    """With weights of one, a projection scaled up changes nothing."""
    a = arguments(Variant(has_bias=False))
    del a["A_b"]
    norms = {
        "b_rms_weight": torch.ones(N_).double(),
        "c_rms_weight": torch.ones(N_).double(),
        "dt_rms_weight": torch.ones(D_).double(),
        "b_c_dt_rms_eps": 0.0,
    }
    y = mamba_inner_fn(**a, **norms)
    close(mamba_inner_fn(**a | {"x_proj_weight": 3 * a["x_proj_weight"]}, **norms), y, 1e-8)
    rows = torch.tensor([1.0] * R_ + [2.0] * N_ + [1.0] * N_).double()  # B alone
    scaled = a | {"x_proj_weight": rows[:, None] * a["x_proj_weight"]}
    close(
        mamba_inner_fn(**scaled, b_rms_weight=norms["b_rms_weight"], b_c_dt_rms_eps=0.0),
        mamba_inner_fn(**a, b_rms_weight=norms["b_rms_weight"], b_c_dt_rms_eps=0.0),
        1e-8,
    )
    assert not torch.allclose(mamba_inner_fn(**scaled), mamba_inner_fn(**a))
    with pytest.raises(NotImplementedError, match="b_rms_weight"):
        mamba_inner_fn(**a | {"A": a["A"] + 0j}, b_rms_weight=norms["b_rms_weight"])


def test_under_autocast() -> None:
    a = {k: None if v is None else v.float() for k, v in arguments(Variant()).items()}
    del a["A_b"]
    with torch.autocast("cpu", torch.bfloat16):
        y = mamba_inner_fn(**a)
    assert y.dtype is torch.bfloat16
    exact = mamba_inner_fn(**a)
    assert (y - exact).abs().max() < 0.05 * exact.abs().max()
