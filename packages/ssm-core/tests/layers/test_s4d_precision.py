"""S4D in low precision: finite on extremes, and how close to what it should be."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ssm_core.layers.s4d import S4D, S4DConfig


def relative_error(y: Tensor, expected: Tensor) -> float:
    return float((y - expected).abs().max() / expected.abs().max())


EXTREMES = {  # of inv_dt and A_real; None leaves what a layer starts with
    "as it starts": (None, None),
    "huge steps": (30.0, None),
    "tiny steps": (-30.0, None),
    "very negative A": (None, 30.0),
    "A near 0": (None, -30.0),
    "both huge": (80.0, 80.0),
    "both tiny": (-80.0, -80.0),
    "pole of the bilinear rule": (math.log(2), 0.0),
}


@pytest.mark.parametrize("extreme", EXTREMES.values(), ids=EXTREMES.keys())
@pytest.mark.parametrize("disc", ["zoh", "bilinear"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_stays_finite_on_extremes(
    extreme: tuple[float | None, float | None], disc: str, dtype: torch.dtype
) -> None:
    layer = S4D(4, S4DConfig(d_state=8, disc=disc))  # type: ignore[arg-type]
    inv_dt, A_real = extreme
    with torch.no_grad():
        if inv_dt is not None:
            layer.kernel.inv_dt.fill_(inv_dt)
        if A_real is not None:
            layer.kernel.A_real.fill_(A_real)
        if A_real == 0:
            layer.kernel.A_imag.zero_()
    l = 4096
    x = torch.stack([torch.zeros(l, 4), torch.full((l, 4), 10.0), torch.randn(l, 4)])
    x.requires_grad_()
    for return_state in (False, True):
        layer.zero_grad()
        with torch.autocast("cpu", dtype):
            result = layer(x, return_state=return_state)
        y = result[0] if return_state else result
        assert y.dtype == dtype
        y.float().mean().backward()
        assert y.isfinite().all()
        assert x.grad is not None
        assert x.grad.isfinite().all()
        for name, parameter in layer.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.dtype == torch.float32
        if return_state:
            assert torch.view_as_real(result[1].ssm).isfinite().all()


@pytest.mark.parametrize(("dtype", "tol"), [(torch.bfloat16, 0.02), (torch.float16, 0.003)])
@pytest.mark.parametrize("bidirectional", [False, True])
@torch.no_grad()
def test_autocast_is_close_to_float32(dtype: torch.dtype, tol: float, bidirectional: bool) -> None:
    layer = S4D(16, S4DConfig(d_state=16, bidirectional=bidirectional))
    bare = S4D(16, S4DConfig(d_state=16, bidirectional=bidirectional, final_act=None))
    x = torch.randn(2, 4096, 16)
    y, bare_y = layer(x), bare(x)
    with torch.autocast("cpu", dtype):
        low, bare_low = layer(x), bare(x)
    assert low.dtype == dtype
    assert (low.float() - y).norm() < tol * y.norm()
    assert torch.equal(bare_low, bare_y)  # all before the output map is in float32


@torch.no_grad()
def test_float32_is_close_to_float64() -> None:
    """Over 4096 steps: in single precision dt Lambda alone, rounded, would be 5e-5 off."""
    for disc in ("zoh", "bilinear"):
        layer = S4D(16, S4DConfig(d_state=32, disc=disc, final_act=None))  # type: ignore[arg-type]
        x = torch.randn(1, 4096, 16)
        y = layer(x), layer(x, return_state=True)[0]
        expected = layer.double()(x.double())
        assert relative_error(y[0], expected) < 2e-6
        assert relative_error(y[1], expected) < 2e-6


def test_parameters_in_half_precision_compute_in_single() -> None:
    layer = S4D(4, S4DConfig(6)).half()
    with torch.no_grad():
        layer.kernel.A_real.fill_(12.0)  # exp(12) = 162755 is beyond float16
    y = layer(torch.ones(1, 3, 4, dtype=torch.float16))
    y.sum().backward()
    assert y.dtype == torch.float16
    assert y.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())
