"""Initial values: exact inverse softplus, protected biases, rescaled branches."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ssm_core.init import (
    exempt_from_reinit,
    exempt_from_weight_decay,
    init_step_size_bias,
    inverse_softplus,
    rescale_residual_branches,
    zero_linear_biases,
)
from ssm_core.layers.bimamba import BiMamba
from ssm_core.layers.mamba import Mamba, MambaConfig


@settings(max_examples=100, deadline=None)
@given(log_y=st.floats(-30, 6))
def test_inverse_softplus_is_exact(log_y: float) -> None:
    y = math.exp(log_y)
    x = inverse_softplus(torch.tensor(y, dtype=torch.float64)).item()
    back = math.log1p(math.exp(x)) if x < 30 else x + math.exp(-x)
    assert math.isclose(back, y, rel_tol=1e-9)


def test_inverse_softplus_in_float32() -> None:
    y = torch.tensor([1e-4, 1e-3, 0.1, 1.0, 50.0, 200.0])
    torch.testing.assert_close(nn.functional.softplus(inverse_softplus(y)), y, rtol=1e-5, atol=0.0)


def test_step_size_bias_keeps_its_type_and_stays_in_range() -> None:
    for dtype in (torch.float32, torch.float64):
        bias = torch.empty(1000, dtype=dtype)
        init_step_size_bias(bias, 0.01, 0.5, 0.02)
        dt = nn.functional.softplus(bias)
        assert bias.dtype == dtype
        assert dt.min() >= 0.02 * (1 - 1e-5)
        assert 0.45 < dt.max() <= 0.5 * (1 + 1e-5)


def test_zero_linear_biases_spares_step_sizes() -> None:
    for layer in (Mamba(8, MambaConfig(bias=True)), BiMamba(8)):
        before = {n: p.clone() for n, p in layer.named_parameters() if "dt_proj" in n}
        nn.ModuleList([layer]).apply(zero_linear_biases)
        assert before
        for name, value in before.items():
            assert torch.equal(layer.get_parameter(name), value)
            assert (value != 0).any()
    mamba = Mamba(8, MambaConfig(bias=True))
    zero_linear_biases(mamba)
    assert torch.equal(mamba.in_proj.bias, torch.zeros(32))
    assert torch.equal(mamba.out_proj.bias, torch.zeros(8))


def test_rescale_touches_the_ends_of_branches_only() -> None:
    mamba = Mamba(8)
    before = {name: value.clone() for name, value in mamba.state_dict().items()}
    rescale_residual_branches(nn.ModuleList([mamba]), n_layers=9)
    for name, value in mamba.state_dict().items():
        divisor = 3 if name == "out_proj.weight" else 1
        torch.testing.assert_close(value, before[name] / divisor)


def test_marks_return_the_parameter() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    assert exempt_from_weight_decay(exempt_from_reinit(parameter)) is parameter
    assert vars(parameter) == {"_no_weight_decay": True, "_no_reinit": True}
