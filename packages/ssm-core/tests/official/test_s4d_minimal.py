"""The minimal S4D against its equations, step by step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from official_cases import golden
from torch import Tensor
from torch.nn import functional as F

from ssm_core import S4D, from_official
from ssm_core.errors import CheckpointError, ConfigError


def by_the_equations(tensors: dict[str, Tensor], x: Tensor) -> Tensor:
    """x (l, h) -> (l, h)."""
    Lambda = torch.complex(-tensors["kernel.log_A_real"].exp(), tensors["kernel.A_imag"])
    dt = tensors["kernel.log_dt"].exp().unsqueeze(1)
    A_bar = torch.exp(dt * Lambda)
    B_bar = (A_bar - 1) / Lambda
    C = torch.view_as_complex(tensors["kernel.C"])
    state, outputs = torch.zeros_like(C), []
    for u in x:
        state = A_bar * state + B_bar * u.unsqueeze(1)
        y = F.gelu(2 * (C * state).real.sum(1) + tensors["D"] * u)
        first, second = (
            tensors["output_linear.0.weight"].squeeze(2) @ y + tensors["output_linear.0.bias"]
        ).chunk(2)
        outputs.append(first * torch.sigmoid(second))
    return torch.stack(outputs)


@torch.no_grad()
def test_is_what_the_equations_say() -> None:
    tensors = {k: v.double() for k, v in golden("s4d_minimal").state_dict.items()}
    tensors = {k: v + 0.1 * torch.randn_like(v) for k, v in tensors.items()}
    layer = from_official("s4d", tensors, d_state=16, dropout=0.1, transposed=True).eval()
    assert isinstance(layer, S4D)
    assert layer.config.dropout == 0.1
    assert {p.dtype for p in layer.parameters()} == {torch.float64}
    x = torch.randn(2, 12, 8, dtype=torch.float64)
    y, state = layer(x, return_state=True)
    for result, sequence in zip(layer(x), x, strict=True):
        expected = by_the_equations(tensors, sequence)
        torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(y, layer(x), rtol=1e-9, atol=1e-9)
    assert state.ssm.dtype is torch.complex128


def test_B_is_not_learned() -> None:
    layer = from_official("s4", golden("s4d_minimal").state_dict, lr=0.002, lr_dt=0.002)
    names = {name for name, _ in layer.named_parameters()}
    assert "kernel.B" not in names
    assert layer.get_parameter("kernel.A_imag")._optim == {"lr": 0.002, "weight_decay": 0.0}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"d_state": 8}, "s4d: d_state is 8, but kernel.C of shape (8, 8, 2) makes it 16"),
        ({"disc": "bilinear"}, "s4d: disc is 'bilinear', but kernel.log_A_real of shape (8, 8) m"),
        ({"mode": "dplr"}, "s4d: mode is 'dplr', but kernel.log_A_real of shape (8, 8) makes it "),
    ],
)
def test_contradictions(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_official("s4d", golden("s4d_minimal").state_dict, **config)
    assert str(caught.value).startswith(message)


def test_missing_and_left_over_tensors_are_named() -> None:
    tensors = golden("s4d_minimal").state_dict | {"kernel.B": torch.zeros(8, 8, 2)}
    del tensors["output_linear.0.bias"]
    with pytest.raises(
        CheckpointError, match=r"missing output_linear\.0\.bias; unexpected kernel\.B$"
    ):
        from_official("s4d", tensors)
