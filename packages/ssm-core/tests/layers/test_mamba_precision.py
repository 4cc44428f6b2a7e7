"""Mamba in half precision and under autocast: finite, and close to float32."""

from __future__ import annotations

import pytest
import torch
from protocol_cases import moved
from torch import Tensor

from ssm_core.layers.mamba import Mamba


@torch.no_grad()
def test_single_steps_under_autocast_are_close_to_float32() -> None:
    layer = moved(Mamba(16), torch.float32)
    state = layer(torch.randn(2, 5, 16), return_state=True)[1]
    x = torch.randn(2, 16)
    y, _ = layer.step(x, state)
    with torch.autocast("cpu", torch.bfloat16):
        low, low_state = layer.step(x, state)
    assert low.dtype == torch.bfloat16
    assert low_state.ssm.dtype == low_state.conv.dtype == torch.float32
    assert (low.float() - y).norm() < 0.05 * y.norm()


def adversarial(l: int, d: int) -> dict[str, Tensor]:
    spike = torch.zeros(1, l, d)
    spike[:, l // 2] = 1e5  # y grows with the fifth power: 1e25, within float32
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
def test_bfloat16_autocast_stays_finite(kind: str, dt_bias: float) -> None:
    torch.manual_seed(0)
    layer = Mamba(8)
    with torch.no_grad():
        layer.dt_proj.bias.fill_(dt_bias)
        layer.A_log.uniform_(-8, 8)  # decays from 3e-4 to 3e3 per step
    x = adversarial(129, 8)[kind].clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y, state = layer(x, return_state=True)
    y.float().mean().backward()
    assert y.isfinite().all()
    assert state.ssm.isfinite().all()
    assert state.ssm.dtype == torch.float32
    assert x.grad is not None
    assert x.grad.isfinite().all()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.dtype == torch.float32


def test_decay_is_computed_in_float32_whatever_the_type_of_the_parameters() -> None:
    layer = Mamba(4).half()
    with torch.no_grad():
        layer.A_log.fill_(12.0)  # exp(12) = 162755 is beyond float16
    layer(torch.ones(1, 3, 4, dtype=torch.float16)).sum().backward()
    assert layer.A_log.grad is not None
    assert layer.A_log.grad.isfinite().all()


@torch.no_grad()
def test_autocast_is_close_to_float32() -> None:
    layer = moved(Mamba(16), torch.float32)
    x = torch.randn(2, 200, 16)
    y = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        low = layer(x)
    assert low.dtype == torch.bfloat16
    assert (low.float() - y).norm() < 0.05 * y.norm()
