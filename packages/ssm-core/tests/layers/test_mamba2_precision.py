"""Mamba-2 under autocast: finite on hard inputs, close to float32."""

from __future__ import annotations

import pytest
import torch
from protocol_cases import moved
from torch import Tensor

from ssm_core.layers.mamba2 import Mamba2
from ssm_core.layers.mamba2_config import Mamba2Config


def adversarial(l: int, d: int) -> dict[str, Tensor]:
    spike = torch.zeros(1, l, d)
    spike[:, l // 2] = 1e4
    return {
        "zeros": torch.zeros(1, l, d),
        "large": torch.randn(1, l, d) * 1e4,
        "constant": torch.full((1, l, d), 100.0),
        "spike": spike,
        "tiny": torch.full((1, l, d), 1e-38),
        "alternating": torch.tensor([1e3, -1e3]).repeat(l)[:l].view(1, l, 1).expand(1, l, d),
    }


@pytest.mark.parametrize("kind", list(adversarial(4, 2)))
@pytest.mark.parametrize("dt_bias", [-30.0, 0.0, 30.0])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_stays_finite(kind: str, dt_bias: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = Mamba2(8, Mamba2Config(d_state=16, headdim=1))
    with torch.no_grad():
        layer.dt_bias.fill_(dt_bias)
        layer.A_log.uniform_(-8, 8)  # decays from 3e-4 to 3e3 per step
    x = adversarial(4096, 8)[kind].clone().requires_grad_()
    with torch.autocast("cpu", dtype):
        y, state = layer(x, return_state=True)
    # after a spike the gradient of the gate is 1e7 and more: the scale a GradScaler would find
    scale = 2.0**-14 if kind == "spike" else 1.0
    (y.float().mean() * scale).backward()
    assert y.dtype == dtype
    assert y.isfinite().all()
    assert state.ssm.isfinite().all()
    assert state.ssm.dtype == torch.float32
    assert x.grad is not None
    assert x.grad.isfinite().all()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.dtype == torch.float32


@pytest.mark.parametrize(("dtype", "tol"), [(torch.bfloat16, 0.05), (torch.float16, 0.01)])
@pytest.mark.parametrize("rmsnorm", [True, False])
@torch.no_grad()
def test_autocast_is_close_to_float32(dtype: torch.dtype, tol: float, rmsnorm: bool) -> None:
    layer = moved(Mamba2(16, Mamba2Config(d_state=8, headdim=8, rmsnorm=rmsnorm)), torch.float32)
    x = torch.randn(2, 200, 16)
    y, state = layer(x, return_state=True)
    y_t, _ = layer.step(x[:, 0], state)
    with torch.autocast("cpu", dtype):
        low = layer(x)
        low_t, low_state = layer.step(x[:, 0], state)
    assert low.dtype == low_t.dtype == dtype
    assert low_state.ssm.dtype == low_state.conv.dtype == torch.float32
    assert (low.float() - y).norm() < tol * y.norm()
    assert (low_t.float() - y_t).norm() < tol * y_t.norm()
