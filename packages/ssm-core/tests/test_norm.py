"""Norms: the formulas, float32 statistics, the type of the result, extreme values."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ssm_core.errors import ConfigError
from ssm_core.norm import GatedRMSNorm, LayerNorm, RMSNorm, at_least_float32, make_norm


def moved(norm: torch.nn.Module) -> torch.nn.Module:
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.add_(torch.randn_like(parameter))
    return norm


def rms(norm: RMSNorm, x: Tensor) -> Tensor:
    x = x.double()
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight.double()


def layer(norm: LayerNorm, x: Tensor) -> Tensor:
    x = x.double()
    centred = x - x.mean(-1, keepdim=True)
    y = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return y * norm.weight.double() + norm.bias.double()


@settings(max_examples=40, deadline=None)
@given(
    d=st.integers(1, 40),
    steps=st.integers(0, 5),
    log_scale=st.floats(-6, 6),
    kind=st.sampled_from(["rms", "layer"]),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    seed=st.integers(0, 1000),
)
@torch.no_grad()
def test_equals_the_formula(
    d: int, steps: int, log_scale: float, kind: str, dtype: torch.dtype, seed: int
) -> None:
    torch.manual_seed(seed)
    norm = moved(make_norm(kind, d))  # type: ignore[arg-type]
    norm = norm.double() if dtype == torch.float64 else norm
    x = (torch.randn(2, steps, d) * 10**log_scale).to(dtype)
    expected = rms(norm, x) if isinstance(norm, RMSNorm) else layer(norm, x)  # type: ignore[arg-type]
    y = norm(x)
    # LayerNorm subtracts the mean: of two equal large numbers only rounding errors stay.
    tol = 1e-10 if dtype == torch.float64 else 2e-4
    torch.testing.assert_close(y.double(), expected, rtol=tol, atol=tol)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_rms_norm_is_the_same_without_a_gradient(dtype: torch.dtype) -> None:
    norm, x = RMSNorm(37).to(dtype), torch.randn(2, 5, 37, dtype=dtype)
    torch.nn.init.normal_(norm.weight)
    y = norm(x)
    with torch.no_grad():
        torch.testing.assert_close(norm(x), y.detach())
        torch.testing.assert_close(norm(x.mT.contiguous().mT), y.detach())


@pytest.mark.parametrize("kind", ["rms", "layer"])
@pytest.mark.parametrize("weight_dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("x_dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_result_has_the_type_of_the_weight(
    kind: str, weight_dtype: torch.dtype, x_dtype: torch.dtype
) -> None:
    norm = make_norm(kind, 8).to(weight_dtype)  # type: ignore[arg-type]
    x = torch.randn(2, 3, 8).to(x_dtype)
    assert norm(x).dtype == weight_dtype
    with torch.autocast("cpu", torch.bfloat16):
        assert norm(x).dtype == weight_dtype


@pytest.mark.parametrize("kind", ["rms", "layer"])
def test_statistics_are_float32(kind: str) -> None:
    # In float16 the squares of these would overflow.
    norm = make_norm(kind, 4).half()  # type: ignore[arg-type]
    y = norm(torch.tensor([[6e4, -6e4, 6e4, -6e4]], dtype=torch.float16))
    torch.testing.assert_close(y.float(), torch.tensor([[1.0, -1.0, 1.0, -1.0]]))


@pytest.mark.parametrize("kind", ["rms", "layer"])
@torch.no_grad()
def test_bfloat16_input_loses_nothing_to_a_float32_weight(kind: str) -> None:
    torch.manual_seed(0)
    norm = moved(make_norm(kind, 16))  # type: ignore[arg-type]
    x = torch.randn(2, 3, 16, dtype=torch.bfloat16)
    torch.testing.assert_close(norm(x), norm(x.float()), rtol=0.0, atol=0.0)


@pytest.mark.parametrize("kind", ["rms", "layer"])
def test_zeros_have_finite_gradients(kind: str) -> None:
    norm = make_norm(kind, 4)  # type: ignore[arg-type]
    x = torch.zeros(1, 2, 4, requires_grad=True)
    norm(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("kind", ["rms", "layer"])
def test_gradients(kind: str) -> None:
    torch.manual_seed(0)
    norm = moved(make_norm(kind, 5)).double()  # type: ignore[arg-type]
    x = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(norm, x)


def gated(norm: GatedRMSNorm, y: Tensor, z: Tensor) -> Tensor:
    y, gate = y.double(), z.double() / (1 + (-z.double()).exp())
    v = y if norm.norm_before_gate else y * gate
    size = v.shape[-1] // norm.groups
    groups = [
        group / (group.square().mean(-1, keepdim=True) + 1e-5).sqrt() for group in v.split(size, -1)
    ]
    v = torch.cat(groups, dim=-1) * norm.weight.double()
    return v * gate if norm.norm_before_gate else v


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(1, 9),
    groups=st.integers(1, 4),
    steps=st.integers(0, 5),
    log_scale=st.floats(-8, 24),
    before=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    gradients=st.booleans(),
)
def test_gated_norm_equals_the_formula(
    size: int,
    groups: int,
    steps: int,
    log_scale: float,
    before: bool,
    dtype: torch.dtype,
    gradients: bool,
) -> None:
    torch.manual_seed(0)
    norm = moved(GatedRMSNorm(size * groups, groups, norm_before_gate=before))
    norm = norm.double() if dtype == torch.float64 else norm
    y, z = torch.randn(2, 2, steps, size * groups).to(dtype).unbind()
    y = (y.double() * 10**log_scale).to(dtype)
    tol = 1e-10 if dtype == torch.float64 else 1e-5
    with torch.set_grad_enabled(gradients):  # without them one kernel does it
        got = norm(y, z).detach()
    assert got.dtype == norm.weight.dtype
    torch.testing.assert_close(got.double(), gated(norm, y, z), rtol=tol, atol=tol)  # type: ignore[arg-type]


@pytest.mark.parametrize("before", [False, True])
def test_gated_norm_gradients_and_types(before: bool) -> None:
    norm = moved(GatedRMSNorm(6, 2, before)).double()
    y, z = torch.randn(2, 2, 3, 6, dtype=torch.float64).unbind()
    assert torch.autograd.gradcheck(norm, (y.requires_grad_(), z.requires_grad_()))
    y, z = torch.full((1, 6), 6e4).half(), torch.full((1, 6), 10.0).half()  # y^2 leaves float16
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        out = GatedRMSNorm(6, 2, before).to(dtype)(y, z)
        assert out.dtype == dtype
        expected = torch.full((1, 6), 10.0 if before else 1.0)
        torch.testing.assert_close(out.float(), expected, rtol=1e-3, atol=0.0)
    zeros = torch.zeros(1, 6, requires_grad=True)
    GatedRMSNorm(6, 2, before)(zeros, torch.zeros(1, 6)).sum().backward()
    assert zeros.grad is not None
    assert zeros.grad.isfinite().all()


def test_gated_norm_groups_must_divide() -> None:
    assert repr(GatedRMSNorm(4, 2)) == "GatedRMSNorm(4, groups=2, eps=1e-05)"
    assert list(GatedRMSNorm(4, 2).state_dict()) == ["weight"]
    with pytest.raises(ConfigError) as caught:
        GatedRMSNorm(4, 3)
    assert str(caught.value) == "GatedRMSNorm: groups is 3, expected a divisor of d_model = 4"


def test_keys_and_text() -> None:
    assert list(RMSNorm(3).state_dict()) == ["weight"]
    assert list(LayerNorm(3).state_dict()) == ["weight", "bias"]
    assert repr(RMSNorm(3)) == "RMSNorm(3, eps=1e-05)"
    assert repr(LayerNorm(3)) == "LayerNorm(3, eps=1e-05)"


def test_at_least_float32() -> None:
    kept = torch.zeros(1, dtype=torch.float64)
    assert at_least_float32(kept) is kept
    assert at_least_float32(kept.half()).dtype == torch.float32
    assert at_least_float32(kept.bfloat16()).dtype == torch.float32


def test_errors() -> None:
    with pytest.raises(ConfigError) as caught:
        make_norm("batch", 4)  # type: ignore[arg-type]
    assert str(caught.value) == "make_norm: name is 'batch', expected 'rms' or 'layer'"
    with pytest.raises(ConfigError, match="RMSNorm: d_model is 0, expected an integer"):
        RMSNorm(0)
