"""Bidirectional Mamba against two causal runs with explicit flips, key names, initial values."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ssm_core.errors import ConfigError
from ssm_core.layers.bimamba import BiMamba, BiMambaConfig
from ssm_core.layers.mamba import Mamba, MambaConfig

BACKWARD_NAMES = {"conv1d_b": "conv1d", "x_proj_b": "x_proj", "dt_proj_b": "dt_proj"}


def strong(d_model: int, config: BiMambaConfig) -> BiMamba:
    """A layer whose every parameter matters, in float64."""
    torch.manual_seed(0)
    layer = BiMamba(d_model, config)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.5)
        layer.dt_proj.bias.uniform_(-1.5, 0.5)
        layer.dt_proj_b.bias.uniform_(-1.5, 0.5)
    return layer.double()


def one_direction(layer: BiMamba, backward: bool) -> Mamba:
    """A causal Mamba with the shared projections and the parameters of one direction."""
    causal = Mamba(layer.d_model, MambaConfig(d_state=layer.A_log.shape[1])).double()
    state: dict[str, Tensor] = {}
    for key, value in layer.state_dict().items():
        head, dot, tail = key.partition(".")
        is_backward = head in (*BACKWARD_NAMES, "A_b_log", "D_b")
        if head in ("in_proj", "out_proj"):
            state[key] = value
        elif is_backward and backward:
            plain = {**BACKWARD_NAMES, "A_b_log": "A_log", "D_b": "D"}[head]
            state[plain + dot + tail] = value
        elif not is_backward and not backward:
            state[key] = value
    causal.load_state_dict(state)
    return causal


@pytest.mark.parametrize("length", [0, 1, 2, 65])
@pytest.mark.parametrize("divide_out", [True, False])
@torch.no_grad()
def test_equals_two_causal_runs_with_flips(length: int, divide_out: bool) -> None:
    layer = strong(6, BiMambaConfig(d_state=3, divide_out=divide_out))
    x = torch.randn(2, length, 6, dtype=torch.float64)
    forward, backward = one_direction(layer, False), one_direction(layer, True)
    total = forward(x) + backward(x.flip(1)).flip(1)
    expected = total / 2 if divide_out else total
    torch.testing.assert_close(layer(x), expected, rtol=1e-10, atol=1e-10)
    steps = (forward.step_sizes(x) + backward.step_sizes(x.flip(1)).flip(1)) / 2
    torch.testing.assert_close(layer.step_sizes(x), steps, rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_layer_scale_multiplies_every_channel_of_the_output() -> None:
    plain = strong(6, BiMambaConfig(d_state=3))
    layer = BiMamba(6, BiMambaConfig(d_state=3, layer_scale=0.25)).double()
    assert layer.gamma is not None
    assert layer.gamma.tolist() == [0.25] * 6
    missing, unexpected = layer.load_state_dict(plain.state_dict(), strict=False)
    assert (missing, unexpected) == (["gamma"], [])
    layer.gamma.copy_(torch.arange(6) - 2.5)
    x = torch.randn(2, 9, 6, dtype=torch.float64)
    torch.testing.assert_close(layer(x), plain(x) * layer.gamma, rtol=1e-12, atol=1e-12)


def test_gradients_equal_those_of_two_causal_runs_with_flips() -> None:
    layer = strong(6, BiMambaConfig(d_state=3))
    x = torch.randn(2, 33, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 33, 6, dtype=torch.float64)
    forward, backward = one_direction(layer, False), one_direction(layer, True)
    expected = (forward(x) + backward(x.flip(1)).flip(1)) / 2
    (expected_grad,) = torch.autograd.grad((expected * weight).sum(), x, retain_graph=True)
    (expected * weight).sum().backward()
    x.grad = None
    (layer(x) * weight).sum().backward()
    torch.testing.assert_close(x.grad, expected_grad, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(layer.A_log.grad, forward.A_log.grad, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(layer.A_b_log.grad, backward.A_log.grad, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        layer.dt_proj_b.bias.grad, backward.dt_proj.bias.grad, rtol=1e-9, atol=1e-9
    )


def test_state_dict_has_the_published_keys() -> None:
    shapes = {name: tuple(v.shape) for name, v in BiMamba(24).state_dict().items()}
    one = {"conv1d": (48, 1, 4), "x_proj": (34, 48), "dt_proj": (48, 2)}
    expected: dict[str, tuple[int, ...]] = {
        "in_proj.weight": (96, 24),
        "out_proj.weight": (24, 48),
        "A_log": (48, 16),
        "A_b_log": (48, 16),
        "D": (48,),
        "D_b": (48,),
    }
    for suffix in ("", "_b"):
        expected |= {f"{name}{suffix}.weight": shape for name, shape in one.items()}
        expected |= {f"conv1d{suffix}.bias": (48,), f"dt_proj{suffix}.bias": (48,)}
    assert shapes == expected


@pytest.mark.parametrize("d_model", [16, 48, 64])
def test_number_of_parameters(d_model: int) -> None:
    d, E, n, k, R = d_model, 2 * d_model, 16, 4, math.ceil(d_model / 16)
    one_direction = E * k + E + (R + 2 * n) * E + R * E + E + E * n + E
    expected = 2 * E * d + d * E + 2 * one_direction
    assert sum(p.numel() for p in BiMamba(d).parameters()) == expected


def test_both_directions_start_with_the_same_law_of_step_sizes() -> None:
    torch.manual_seed(0)
    layer = BiMamba(512)
    for bias in (layer.dt_proj.bias, layer.dt_proj_b.bias):
        dt = torch.nn.functional.softplus(bias.detach())
        assert 0.999e-3 <= dt.min() < 1.1e-3
        assert 0.09 < dt.max() <= 0.1001
        assert (bias != 0).all()
    assert not torch.equal(layer.dt_proj.bias, layer.dt_proj_b.bias)
    rows = torch.arange(1.0, 17.0).expand(1024, 16)
    torch.testing.assert_close(layer.A_log.exp(), rows)
    torch.testing.assert_close(layer.A_b_log.exp(), rows)


def test_marks_for_optimisers_and_initialisers() -> None:
    named = dict(BiMamba(8).named_parameters())
    no_decay = {n for n, p in named.items() if getattr(p, "_no_weight_decay", False)}
    no_reinit = {n for n, p in named.items() if getattr(p, "_no_reinit", False)}
    assert no_reinit == {"dt_proj.bias", "dt_proj_b.bias"}
    assert no_decay == {"A_log", "A_b_log", "D", "D_b"} | no_reinit


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e4])
def test_bfloat16_autocast_stays_finite(scale: float) -> None:
    torch.manual_seed(0)
    layer = BiMamba(8)
    x = (torch.randn(2, 129, 8) * scale).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    y.float().square().mean().backward()
    assert y.dtype == torch.bfloat16
    assert y.isfinite().all()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_layer_scale_must_be_a_number(scale: float) -> None:
    with pytest.raises(
        ConfigError, match=r"BiMambaConfig: layer_scale is .* finite number or None"
    ):
        BiMambaConfig(layer_scale=scale)


def test_config_errors_carry_the_right_name() -> None:
    with pytest.raises(ConfigError) as caught:
        BiMambaConfig(d_state=-1)
    assert str(caught.value) == "BiMambaConfig: d_state is -1, expected an integer of at least 1"
