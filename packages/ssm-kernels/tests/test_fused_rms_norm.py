"""The RMS norm, plain and gated, in one kernel, against its formula in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from traced_calls import Watch

from ssm_kernels import ArgumentError, ShapeError, fused_gated_rms_norm, fused_rms_norm

TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-14}


def expected(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    x, weight = x.double(), weight.double()
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight


@torch.no_grad()
def assert_right(shape: tuple[int, ...], dtype: torch.dtype, eps: float) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(shape, dtype=dtype), torch.randn(shape[-1], dtype=dtype)
    y = fused_rms_norm(x, weight, eps)
    assert y is not None
    assert y.dtype is dtype
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(y.double(), expected(x, weight, eps), rtol=tolerance, atol=tolerance)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(0, 3), st.integers(0, 60), st.integers(1, 300)),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    eps=st.sampled_from([1e-6, 1e-5, 0.5]),
)
def test_it_is_the_formula(shape: tuple[int, ...], dtype: torch.dtype, eps: float) -> None:
    assert_right(shape, dtype, eps)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_every_instruction_set(isa: str, dtype: torch.dtype) -> None:
    for d in (1, 15, 64, 10000):
        assert_right((7, d), dtype, 1e-5)
    assert_right((33,), dtype, 1e-5)


@torch.no_grad()
def test_extreme_rows() -> None:
    x = torch.tensor([[0.0, 0.0], [1e-30, 0.0], [torch.nan, 1.0], [3e18, 3e18]])
    y = fused_rms_norm(x, torch.ones(2), 1e-5)
    assert y is not None
    torch.testing.assert_close(y[:2], torch.tensor([[0.0, 0.0], [1e-30 * 1e5**0.5, 0.0]]))
    assert y[2].isnan().all()
    torch.testing.assert_close(y[3], torch.ones(2))


def test_where_it_does_not_run() -> None:
    x, weight = torch.randn(3, 4, 5), torch.ones(5)
    assert fused_rms_norm(x, weight, 1e-5) is None  # gradients enabled
    with torch.no_grad():
        assert fused_rms_norm(x, weight, 1e-5) is not None
        assert fused_rms_norm(x.mT.contiguous().mT, weight, 1e-5) is None
        assert fused_rms_norm(x.bfloat16(), weight.bfloat16(), 1e-5) is None
        assert fused_rms_norm(x, weight.double(), 1e-5) is None
        assert fused_rms_norm(x.to("meta"), weight.to("meta"), 1e-5) is None
        with Watch():
            assert fused_rms_norm(x, weight, 1e-5) is None
        with torch.autocast("cpu"):
            assert fused_rms_norm(x, weight, 1e-5) is None
        with pytest.raises(ShapeError, match="weight has shape"):
            fused_rms_norm(x, torch.ones(4), 1e-5)


@torch.no_grad()
def assert_gated_right(shape: tuple[int, int, int], groups: int, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    b, l, d = shape
    x, weight = torch.randn(b, l, d * groups, dtype=dtype), torch.randn(d * groups, dtype=dtype)
    z = torch.randn(b, l, 2 * d * groups + 3, dtype=dtype)
    v = x.double() * torch.nn.functional.silu(z[..., : d * groups].double())
    right = (
        expected(v.unflatten(-1, (groups, d)), torch.ones(d), 1e-5).flatten(-2) * weight.double()
    )
    part = z[..., : d * groups]
    tolerance = 4 * TOLERANCE[dtype]
    for gate in (part, part.contiguous(), part.mT.contiguous().mT):
        y = fused_gated_rms_norm(x, gate, weight, 1e-5, groups)
        assert y is not None
        assert y.dtype is dtype
        torch.testing.assert_close(y.double(), right, rtol=tolerance, atol=tolerance)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(0, 3), st.integers(0, 40), st.integers(1, 150)),
    groups=st.integers(1, 4),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_the_gated_norm_is_its_formula(
    shape: tuple[int, int, int], groups: int, dtype: torch.dtype
) -> None:
    assert_gated_right(shape, groups, dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_the_gated_norm_of_every_instruction_set(isa: str, dtype: torch.dtype) -> None:
    for d, groups in ((1, 1), (15, 3), (64, 2), (3000, 1)):
        assert_gated_right((2, 5, d), groups, dtype)


@torch.no_grad()
def test_extreme_gates_and_rows() -> None:
    x = torch.tensor([[3e25, 3e25], [0.0, 0.0], [torch.nan, 1.0], [1.0, 1.0]])
    gate = torch.tensor([[2.0, 2.0], [50.0, -50.0], [1.0, 1.0], [1e4, -1e4]])
    y = fused_gated_rms_norm(x, gate, torch.ones(2), 1e-5)
    assert y is not None
    torch.testing.assert_close(y[0], torch.ones(2))  # its squares are beyond float32
    assert torch.equal(y[1], torch.zeros(2))
    assert y[2].isnan().all()
    torch.testing.assert_close(y[3], torch.tensor([2.0**0.5, 0.0]))


def test_where_the_gated_norm_does_not_run() -> None:
    x, z, weight = torch.randn(3, 4, 6), torch.randn(3, 4, 6), torch.ones(6)
    assert fused_gated_rms_norm(x, z, weight, 1e-5) is None  # gradients enabled
    with torch.no_grad():
        assert fused_gated_rms_norm(x, z, weight, 1e-5) is not None
        assert fused_gated_rms_norm(x.mT.contiguous().mT, z, weight, 1e-5) is None
        assert fused_gated_rms_norm(x, z.double(), weight, 1e-5) is None
        with Watch():
            assert fused_gated_rms_norm(x, z, weight, 1e-5) is None
        with pytest.raises(ShapeError, match="gate has shape"):
            fused_gated_rms_norm(x, z[..., :5], weight, 1e-5)
        with pytest.raises(ShapeError, match="weight has shape"):
            fused_gated_rms_norm(x, z, torch.ones(5), 1e-5)
        with pytest.raises(ArgumentError, match="groups is 4"):
            fused_gated_rms_norm(x, z, weight, 1e-5, 4)
