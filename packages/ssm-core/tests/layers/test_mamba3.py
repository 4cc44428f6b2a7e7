"""Mamba-3 against the equations as loops, official keys, initial values, low precision."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ssm_core.errors import ConfigError
from ssm_core.layers.mamba3 import Mamba3, Mamba3State
from ssm_core.layers.mamba3_config import Mamba3Config

EPS = 1e-5


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def normed(v: list[float], weight: list[float]) -> list[float]:
    scale = 1 / math.sqrt(sum(a * a for a in v) / len(v) + EPS)
    return [a * scale * w for a, w in zip(v, weight, strict=True)]


def turned(v: list[float], angles: list[float]) -> list[float]:
    out = list(v)
    for i, angle in enumerate(angles):
        c, s = math.cos(angle), math.sin(angle)
        a, b = v[2 * i], v[2 * i + 1]
        out[2 * i], out[2 * i + 1] = c * a - s * b, s * a + c * b
    return out


def loop(layer: Mamba3, x: Tensor) -> tuple[Tensor, Tensor]:
    """Run one sequence x (l, d) by the paper's equations, number by number; return y and Delta."""
    W = {name: value.tolist() for name, value in layer.double().state_dict().items()}
    config, (E, h, p, K) = layer.config, layer.sizes
    n, g = config.d_state, config.ngroups
    sizes = [E, E, g * n, g * n, h, h, h, K]
    theta = [[0.0] * K for _ in range(h)]
    S = [[[0.0] * n for _ in range(p)] for _ in range(h)]
    k_before, v_before = [[0.0] * n for _ in range(h)], [[0.0] * p for _ in range(h)]
    ys, deltas = [], []
    for x_t in x.tolist():
        row = [sum(w * a for w, a in zip(r, x_t, strict=True)) for r in W["in_proj.weight"]]
        z, u, B, C, dd_dt, dd_A, trap, angle = (
            row[sum(sizes[:i]) : sum(sizes[: i + 1])] for i in range(8)
        )
        out, delta = [], []
        for head in range(h):
            f = 1 + dd_A[head] if dd_A[head] >= 0 else 1 / (1 - dd_A[head])
            A = min(-f, -config.A_floor)
            dt = math.log1p(math.exp(dd_dt[head] + W["dt_bias"][head]))
            delta.append(dt)
            lam = sigmoid(trap[head])
            decay = math.exp(A * dt)
            theta[head] = [
                (t + dt * math.pi * math.tanh(a)) % (2 * math.pi)
                for t, a in zip(theta[head], angle, strict=True)
            ]
            group = head // (h // g)
            rows = []
            for name, M in (("B", B), ("C", C)):
                v = normed(M[group * n : (group + 1) * n], W[f"{name}_norm.weight"])
                shifted = [a + b for a, b in zip(v, W[f"{name}_bias"][head][0], strict=True)]
                rows.append(turned(shifted, theta[head]))
            k, q = rows
            v = u[head * p : (head + 1) * p]
            y = []
            for i in range(p):
                for j in range(n):
                    S[head][i][j] = (
                        decay * S[head][i][j]
                        + (1 - lam) * dt * decay * v_before[head][i] * k_before[head][j]
                        + lam * dt * v[i] * k[j]
                    )
                y.append(sum(S[head][i][j] * q[j] for j in range(n)) + W["D"][head] * v[i])
            k_before[head], v_before[head] = k, v
            if config.is_outproj_norm:
                y = normed(y, W["norm.weight"][head * p : (head + 1) * p])
            out += [
                a * b * sigmoid(b) for a, b in zip(y, z[head * p : (head + 1) * p], strict=True)
            ]
        ys.append([sum(w * a for w, a in zip(r, out, strict=True)) for r in W["out_proj.weight"]])
        deltas.append(delta)
    return torch.tensor(ys, dtype=torch.float64), torch.tensor(deltas, dtype=torch.float64)


def strong(d_model: int, config: Mamba3Config, seed: int = 0) -> Mamba3:
    """A layer whose every parameter matters: weights of order 1, step sizes of order 0.5."""
    torch.manual_seed(seed)
    layer = Mamba3(d_model, config)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.5)
        layer.dt_bias.uniform_(-1.5, 0.5)
    return layer


PLAIN = {"d_state": 6, "headdim": 3}  # of a model of width 6: four heads
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": PLAIN,
    "groups": PLAIN | {"ngroups": 2, "d_state": 5},
    "all states turn": PLAIN | {"rope_fraction": 1.0, "ngroups": 4},
    "norm": PLAIN | {"is_outproj_norm": True},
    "floor": PLAIN | {"A_floor": 1.5, "chunk_size": 4},
}


@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_equals_the_equations(name: str) -> None:
    layer = strong(6, Mamba3Config(**VARIANTS[name])).double()
    x = torch.randn(2, 11, 6, dtype=torch.float64)
    state, steps = layer.initial_state(2), []
    for x_t in x.unbind(1):
        y_t, state = layer.step(x_t, state)
        steps.append(y_t)
    got = zip(layer(x), torch.stack(steps, dim=1), layer.step_sizes(x), x, strict=True)
    for y, stepped, delta, sequence in got:
        expected_y, expected_delta = loop(layer, sequence)
        torch.testing.assert_close(y, expected_y, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(stepped, expected_y, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(delta, expected_delta, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize(
    ("dtype", "state_dtype", "tol"),
    [
        (torch.float64, torch.float32, 1e-12),
        (torch.float32, torch.float64, 2e-5),
        (torch.bfloat16, torch.float32, 3e-2),
    ],
)
def test_single_steps_with_and_without_a_gradient_agree(
    name: str, dtype: torch.dtype, state_dtype: torch.dtype, tol: float
) -> None:
    """Without a gradient other operators run, which write in place: into a copy of the state."""
    layer = strong(6, Mamba3Config(**VARIANTS[name])).to(dtype)
    x = torch.randn(2, 6, dtype=dtype)
    start = layer.initial_state(2)
    state = Mamba3State(*(torch.rand_like(part, dtype=state_dtype) for part in start))
    before = [part.clone() for part in state]
    y, following = layer.step(x, state)
    assert y.requires_grad
    with torch.no_grad():
        other_y, other = layer.step(x, state)
    assert all(torch.equal(a, b) for a, b in zip(state, before, strict=True))
    torch.testing.assert_close(other_y, y, rtol=tol, atol=tol)
    torch.testing.assert_close(other, following, rtol=tol, atol=tol)
    assert {part.dtype for part in other} == {torch.promote_types(dtype, torch.float32)}


@torch.no_grad()
def test_angles_of_long_sequences_keep_their_digits() -> None:
    layer = strong(6, Mamba3Config(d_state=4, headdim=12))
    x = torch.randn(1, 1, 6).expand(1, 20000, 6)
    _, state = layer(x, return_state=True)
    _, expected = layer.double()(x.double(), return_state=True)
    assert (state.angle.double() - expected.angle).abs().max() < 0.05  # 20000 steps of 1e-7 each


def test_state_dict_has_the_official_keys() -> None:
    config = Mamba3Config(d_state=11, headdim=12, ngroups=2, is_outproj_norm=True)
    shapes = {name: tuple(value.shape) for name, value in Mamba3(24, config).state_dict().items()}
    assert shapes == {
        "in_proj.weight": (2 * 48 + 2 * 2 * 11 + 3 * 4 + 2, 24),
        "dt_bias": (4,),
        "D": (4,),
        "B_bias": (4, 1, 11),
        "C_bias": (4, 1, 11),
        "B_norm.weight": (11,),
        "C_norm.weight": (11,),
        "norm.weight": (48,),
        "out_proj.weight": (24, 48),
    }


def test_initial_values_and_marks() -> None:
    layer = Mamba3(256, Mamba3Config(headdim=1, d_state=4))
    dt = F.softplus(layer.dt_bias.detach().double())
    assert 0.999e-3 <= dt.min() < 2e-3
    assert 0.05 < dt.max() <= 0.1001
    ones = [layer.D, layer.B_bias, layer.C_bias, layer.B_norm.weight, layer.C_norm.weight]
    assert all(torch.equal(part, torch.ones_like(part)) for part in ones)
    no_decay = {n for n, p in layer.named_parameters() if getattr(p, "_no_weight_decay", False)}
    no_reinit = {n for n, p in layer.named_parameters() if getattr(p, "_no_reinit", False)}
    assert no_decay == {"D", "dt_bias"}
    assert no_reinit == {"dt_bias"}
    assert Mamba3(64)(torch.randn(1, 3, 64)).shape == (1, 3, 64)


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [
        *[
            (dtype, scale)
            for dtype in (torch.bfloat16, torch.float16)
            for scale in (0.0, 1e-38, 1.0)
        ],
        (torch.bfloat16, 1e4),  # y grows with the square of x
    ],
)
@pytest.mark.parametrize("dt_bias", [-200.0, 0.0, 30.0])
def test_autocast_stays_finite(scale: float, dt_bias: float, dtype: torch.dtype) -> None:
    layer = Mamba3(8, Mamba3Config(d_state=16, headdim=4))
    with torch.no_grad():
        layer.dt_bias.fill_(dt_bias)
    x = torch.randn(1, 4096, 8)
    x[:, :2048] = 1.0
    x = (x * scale).requires_grad_()
    with torch.autocast("cpu", dtype):
        y, state = layer(x, return_state=True)
    y.float().mean().backward()
    assert y.dtype == dtype
    assert y.isfinite().all()
    for part in state:
        assert part.dtype == torch.float32
        assert part.isfinite().all()
    for tensor in (x, *layer.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()


@torch.no_grad()
def test_autocast_is_close_to_float32() -> None:
    layer = strong(16, Mamba3Config(d_state=8, headdim=8))
    with torch.no_grad():
        layer.dt_bias.fill_(-5.0)  # angles add up what bfloat16 rounds
    x = torch.randn(2, 200, 16)
    y = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        low = layer(x)
    assert low.dtype == torch.bfloat16
    assert (low.float() - y).norm() < 0.05 * y.norm()


@pytest.mark.parametrize(
    ("d_model", "options", "message"),
    [
        (8, {"d_state": 0}, "Mamba3Config: d_state is 0, expected an integer of at least 1"),
        (
            8,
            {"chunk_size": 0},
            "Mamba3Config: chunk_size (a number or None) is 0, expected an integer of at least 1",
        ),
        (8, {"A_floor": 0.0}, "Mamba3Config: A_floor is 0.0, expected a number above 0"),
        (
            8,
            {"d_state": 3},
            "Mamba3Config: rope_fraction is 0.5, expected above 0, at most 1, and two or more of "
            "the d_state = 3 states",
        ),
        (
            24,
            {"headdim": 64},
            "Mamba3: headdim is 64, expected a divisor of expand * d_model = 48, such as 16",
        ),
        (
            24,
            {"headdim": 8, "d_inner": 20},
            "Mamba3: headdim is 8, expected a divisor of d_inner = 20, such as 4",
        ),
        (
            64,
            {"ngroups": 4},
            "Mamba3: ngroups is 4, expected a divisor of the number of heads, 128 / headdim = 2",
        ),
    ],
)
def test_config_errors(d_model: int, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Mamba3(d_model, Mamba3Config(**options))
    assert str(caught.value) == message
