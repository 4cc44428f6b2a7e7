"""Mamba against the equations as loops, official keys, initial values, low precision."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ssm_core.errors import ConfigError
from ssm_core.layers.mamba import Mamba, MambaConfig, MambaState
from ssm_core.layers.selective import step_sizes_of


def silu(x: float) -> float:
    return x / (1 + math.exp(-x))


def loop(layer: Mamba, x: Tensor) -> tuple[Tensor, Tensor]:
    """Run one sequence x (l, d) by the paper's equations, number by number; return y and Delta."""
    W = {name: value.tolist() for name, value in layer.double().state_dict().items()}
    E, n, k = len(W["D"]), len(W["A_log"][0]), len(W["conv1d.weight"][0][0])
    R = len(W["dt_proj.weight"][0])

    def linear(name: str, v: list[float]) -> list[float]:
        bias = W.get(f"{name}.bias", [0.0] * len(W[f"{name}.weight"]))
        rows = zip(W[f"{name}.weight"], bias, strict=True)
        return [sum(w * a for w, a in zip(row, v, strict=True)) + b for row, b in rows]

    past = [[0.0] * E for _ in range(k - 1)]
    h = [[0.0] * n for _ in range(E)]
    ys, deltas = [], []
    for x_t in x.tolist():
        projected = linear("in_proj", x_t)
        u, z = projected[:E], projected[E:]
        window = [*past, u]
        past = window[1:]
        conv = [
            silu(
                W["conv1d.bias"][e]
                + sum(W["conv1d.weight"][e][0][j] * window[j][e] for j in range(k))
            )
            for e in range(E)
        ]
        row = [sum(w * a for w, a in zip(r, conv, strict=True)) for r in W["x_proj.weight"]]
        dt, B, C = row[:R], row[R : R + n], row[R + n :]
        delta = [math.log1p(math.exp(v)) for v in linear("dt_proj", dt)]
        inner = []
        for e in range(E):
            for i in range(n):
                A = -math.exp(W["A_log"][e][i])
                h[e][i] = math.exp(delta[e] * A) * h[e][i] + delta[e] * B[i] * conv[e]
            y = sum(C[i] * h[e][i] for i in range(n)) + W["D"][e] * conv[e]
            inner.append(y * silu(z[e]))
        ys.append(linear("out_proj", inner))
        deltas.append(delta)
    return torch.tensor(ys, dtype=torch.float64), torch.tensor(deltas, dtype=torch.float64)


def strong(d_model: int, config: MambaConfig, seed: int = 0) -> Mamba:
    """A layer whose every parameter matters: weights of order 1, step sizes of order 0.5."""
    torch.manual_seed(seed)
    layer = Mamba(d_model, config)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.5)
        layer.dt_proj.bias.uniform_(-1.5, 0.5)
    return layer


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("d_state", "d_conv", "dt_rank"), [(3, 4, 2), (1, 1, 1), (5, 2, 3)])
@torch.no_grad()
def test_equals_the_equations(bias: bool, d_state: int, d_conv: int, dt_rank: int) -> None:
    layer = strong(5, MambaConfig(d_state, d_conv, dt_rank=dt_rank, bias=bias)).double()
    x = torch.randn(2, 11, 5, dtype=torch.float64)
    for y, delta, sequence in zip(layer(x), layer.step_sizes(x), x, strict=True):
        expected_y, expected_delta = loop(layer, sequence)
        torch.testing.assert_close(y, expected_y, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(delta, expected_delta, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("d_state", "d_conv"), [(3, 4), (1, 1), (16, 8)])
@pytest.mark.parametrize(
    ("dtype", "state_dtype", "tol"),
    [
        (torch.float64, torch.float64, 1e-12),
        (torch.float64, torch.float32, 1e-12),
        (torch.float32, torch.float32, 1e-5),
        (torch.float32, torch.float64, 1e-5),
        (torch.bfloat16, torch.float32, 2e-2),
    ],
)
def test_single_steps_with_and_without_a_gradient_agree(
    d_state: int, d_conv: int, dtype: torch.dtype, state_dtype: torch.dtype, tol: float
) -> None:
    """Without a gradient other operators run, which write in place: into a copy of the state."""
    layer = strong(6, MambaConfig(d_state, d_conv)).to(dtype)
    x = torch.randn(2, 6, dtype=dtype)
    start = layer.initial_state(2)
    state = MambaState(*(torch.randn_like(part, dtype=state_dtype) for part in start))
    before = [part.clone() for part in state]

    y, following = layer.step(x, state)
    assert y.requires_grad
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            other_y, other = layer.step(x, state)
        assert not other_y.requires_grad
        assert all(torch.equal(a, b) for a, b in zip(state, before, strict=True))
        torch.testing.assert_close(other_y, y, rtol=tol, atol=tol)
        torch.testing.assert_close(other, following, rtol=tol, atol=tol)
        assert isinstance(other, MambaState)


def test_single_step_without_a_gradient_runs_the_step_operators(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the operator for whole sequences was called")

    layer = strong(6, MambaConfig())
    state = layer.initial_state(2)
    monkeypatch.setattr("ssm_core.layers.selective.selective_scan", refuse)
    monkeypatch.setattr("ssm_core.layers.selective.causal_conv1d", refuse)
    with torch.no_grad():
        layer.step(torch.randn(2, 6), state)
        layer(torch.randn(2, 1, 6), state=state)
        with pytest.raises(AssertionError, match="whole sequences"):
            layer(torch.randn(2, 2, 6), state=state)
    with pytest.raises(AssertionError, match="whole sequences"):
        layer.step(torch.randn(2, 6), state)


def test_step_sizes_are_positive_and_carry_gradients() -> None:
    layer = strong(6, MambaConfig())
    x = torch.randn(2, 7, 6, requires_grad=True)
    delta = layer.step_sizes(x)
    delta.sum().backward()
    assert delta.shape == (2, 7, 12)
    assert delta.dtype == torch.float32
    assert delta.min() > 0
    assert x.grad is not None
    assert x.grad.abs().max() > 0
    assert step_sizes_of(layer._direction(), torch.zeros(1, 0, 12)).shape == (1, 0, 12)


def test_state_dict_has_the_official_keys() -> None:
    layer = Mamba(24, MambaConfig(d_state=16))
    shapes = {name: tuple(value.shape) for name, value in layer.state_dict().items()}
    assert shapes == {
        "in_proj.weight": (96, 24),
        "conv1d.weight": (48, 1, 4),
        "conv1d.bias": (48,),
        "x_proj.weight": (2 + 32, 48),
        "dt_proj.weight": (48, 2),
        "dt_proj.bias": (48,),
        "A_log": (48, 16),
        "D": (48,),
        "out_proj.weight": (24, 48),
    }
    with_bias = Mamba(24, MambaConfig(bias=True, conv_bias=False)).state_dict()
    assert set(with_bias) - set(shapes) == {"in_proj.bias", "out_proj.bias"}
    assert set(shapes) - set(with_bias) == {"conv1d.bias"}


@pytest.mark.parametrize("d_model", [1, 16, 17, 64])
@pytest.mark.parametrize("expand", [1, 2, 3])
def test_number_of_parameters(d_model: int, expand: int) -> None:
    d, E, n, k, R = d_model, expand * d_model, 7, 3, math.ceil(d_model / 16)
    layer = Mamba(d, MambaConfig(d_state=n, d_conv=k, expand=expand))
    expected = 2 * E * d + E * k + E + (R + 2 * n) * E + R * E + E + E * n + E + d * E
    assert sum(p.numel() for p in layer.parameters()) == expected


def test_initial_values() -> None:
    torch.manual_seed(0)
    layer = Mamba(512, MambaConfig(d_state=8))
    torch.testing.assert_close(layer.A_log.exp(), torch.arange(1.0, 9.0).expand(1024, 8))
    assert torch.equal(layer.D, torch.ones(1024))
    bound = 32**-0.5
    assert 0.99 * bound < layer.dt_proj.weight.abs().max() <= bound
    assert layer.in_proj.weight.abs().max() <= 512**-0.5
    assert layer.conv1d.weight.abs().max() <= 0.5


def test_initial_step_sizes_are_log_uniform() -> None:
    torch.manual_seed(0)
    dt = torch.nn.functional.softplus(Mamba(2048).dt_proj.bias.detach().double())
    assert dt.min() >= 0.999e-3
    assert dt.max() <= 0.1001
    u = ((dt.log() - math.log(1e-3)) / math.log(100)).sort().values
    uniform = (torch.arange(4096, dtype=torch.float64) + 0.5) / 4096
    assert (u - uniform).abs().max() < 1.63 / 64  # Kolmogorov-Smirnov at 1 %, n = 4096


def test_initial_step_sizes_respect_the_floor() -> None:
    config = MambaConfig(dt_min=1e-5, dt_max=1e-2, dt_init_floor=1e-3)
    dt = torch.nn.functional.softplus(Mamba(256, config).dt_proj.bias.detach())
    assert dt.min() >= 0.999e-3
    assert (dt < 1.001e-3).float().mean() > 0.3  # two thirds of the range lie below the floor


def test_marks_for_optimisers_and_initialisers() -> None:
    layer = Mamba(8)
    no_decay = {n for n, p in layer.named_parameters() if getattr(p, "_no_weight_decay", False)}
    no_reinit = {n for n, p in layer.named_parameters() if getattr(p, "_no_reinit", False)}
    assert no_decay == {"A_log", "D", "dt_proj.bias"}
    assert no_reinit == {"dt_proj.bias"}
    assert {p.dtype for p in layer.parameters()} == {torch.float32}


def test_state_shapes_and_types() -> None:
    layer = Mamba(6, MambaConfig(d_state=5, d_conv=4)).bfloat16()
    start = layer.initial_state(3)
    _, end = layer(torch.randn(3, 2, 6, dtype=torch.bfloat16), return_state=True)
    for state in (start, end):
        assert isinstance(state, MambaState)
        assert state.conv.shape == (3, 12, 3)
        assert state.ssm.shape == (3, 12, 5)
        assert state.conv.dtype == state.ssm.dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_state": 0}, "MambaConfig: d_state is 0, expected an integer of at least 1"),
        ({"d_conv": 2.5}, "MambaConfig: d_conv is 2.5, expected an integer of at least 1"),
        ({"expand": True}, "MambaConfig: expand is True, expected an integer of at least 1"),
        (
            {"dt_rank": "half"},
            "MambaConfig: dt_rank (a number or 'auto') is 'half', "
            "expected an integer of at least 1",
        ),
        (
            {"dt_min": 0.2},
            "MambaConfig: dt_min is 0.2 and dt_max 0.1, expected 0 < dt_min <= dt_max",
        ),
        (
            {"dt_init_floor": 0.0},
            "MambaConfig: dt_init_floor is 0.0, expected a number above 0 and at most dt_max = 0.1",
        ),
    ],
)
def test_config_errors(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        MambaConfig(**options)  # type: ignore[arg-type]
    assert str(caught.value) == message


def test_width_must_be_positive() -> None:
    with pytest.raises(ConfigError, match="Mamba: d_model is 0, expected an integer of at least 1"):
        Mamba(0)
