"""The sines and cosines of the compiled scan with complex A, and what large angles do to it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from native_scan_cases import (
    Case,
    Mode,
    check,
    error,
    expected_scan,
    make_case,
    native_gradients,
    native_scan,
)
from torch import Tensor

from ssm_kernels import native

pytestmark = pytest.mark.skipif(not native.AVAILABLE, reason=f"not built: {native.IMPORT_ERROR}")


def turns(x: Tensor) -> Tensor:
    """exp(i x) as the scan computes it: the state after one step of size 1 from 1, with A = i x."""
    one = torch.ones(1, 1, len(x), dtype=x.dtype)
    A = torch.complex(torch.zeros_like(x), x).reshape(-1, 1)
    state = torch.ones(1, len(x), 1, dtype=A.dtype)
    case = Case(one, one, A, torch.zeros_like(A), torch.zeros_like(A), initial_state=state)
    return native_scan(case, Mode(delta_softplus=False))[1].flatten()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("largest", [0.8, 10.0, 1e3, 1.2e4, 1.3e4, 1.59e6, 1.61e6, 1e20])
def test_sine_and_cosine_are_accurate(isa: str, largest: float, dtype: torch.dtype) -> None:
    x = torch.cat([torch.linspace(-largest, largest, 20001), torch.arange(-9, 10) * torch.pi / 2])
    x = x.to(dtype)
    got = torch.view_as_real(turns(x)).double()
    expected = torch.stack([x.double().cos(), x.double().sin()], -1)
    assert (got - expected).abs().max() <= torch.finfo(dtype).eps
    small = x.abs() < 0.1  # a small sine keeps its digits
    assert ((got - expected)[small, 1].abs() <= 2 * torch.finfo(dtype).eps * x[small].abs()).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_special_angles(isa: str, dtype: torch.dtype) -> None:
    x = torch.tensor([0.0, -0.0, float("nan"), float("inf"), -float("inf"), 1.0], dtype=dtype)
    got = turns(x)
    assert got[:2].tolist() == [1, 1]
    assert torch.view_as_real(got[2:5]).isnan().all()
    assert got[5].isfinite()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large_angles(isa: str, dtype: torch.dtype) -> None:
    case, mode = make_case((2, 40, 19, 3), dtype=dtype, complex_A=True), Mode(delta_softplus=False)
    A = torch.complex(case.A.real, torch.randn(case.A.shape, dtype=dtype) * 1e3)
    case = replace(case, delta=torch.rand(2, 40, 19, dtype=dtype), A=A, delta_bias=None)
    angle = (case.delta.abs().amax((0, 1)).unsqueeze(-1) * A.imag.abs()).max().item()
    assert angle > 1e3
    check(case, mode, times=4 * angle)


def test_far_angles_leave_other_channels_alone(isa: str) -> None:
    case, mode = make_case((2, 70, 24, 5), complex_A=True), Mode()
    grad_y = torch.randn(case.u.shape)
    A = case.A.clone()
    A[7, 2] = complex(-0.5, 3e5)  # computed lane by lane
    far = replace(case, A=A)
    near_y, far_y = native_scan(case, mode)[0], native_scan(far, mode)[0]
    others = torch.arange(24) != 7
    assert torch.equal(near_y[..., others], far_y[..., others])
    assert error(far_y, expected_scan(far, mode)[0]) < 0.2  # 3e5 radians hold two digits
    near, far_gradients = (native_gradients(c, mode, grad_y, None) for c in (case, far))
    assert torch.equal(near["A"][others], far_gradients["A"][others])
    assert torch.equal(near["u"][..., others], far_gradients["u"][..., others])
