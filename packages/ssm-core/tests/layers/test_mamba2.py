"""Mamba-2 against the equations as loops, official keys, initial values, low precision."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ssm_core.layers.mamba2 import Mamba2, Mamba2State
from ssm_core.layers.mamba2_config import Mamba2Config

EPS = 1e-5


def silu(x: float) -> float:
    return x / (1 + math.exp(-x))


def normed(v: list[float], weight: list[float], groups: int) -> list[float]:
    size = len(v) // groups
    out = []
    for i, value in enumerate(v):
        group = v[i // size * size : (i // size + 1) * size]
        out.append(value / math.sqrt(sum(a * a for a in group) / size + EPS) * weight[i])
    return out


def loop(layer: Mamba2, x: Tensor) -> tuple[Tensor, Tensor]:
    """Run one sequence x (l, d) by the paper's equations, number by number; return y and Delta."""
    W = {name: value.tolist() for name, value in layer.double().state_dict().items()}
    c = layer.config
    h, n, k, p, g = len(W["A_log"]), c.d_state, c.d_conv, layer.sizes.headdim, c.ngroups
    width = len(W["out_proj.weight"][0])
    m = width - h * p

    def linear(name: str, v: list[float]) -> list[float]:
        bias = W.get(f"{name}.bias", [0.0] * len(W[f"{name}.weight"]))
        rows = zip(W[f"{name}.weight"], bias, strict=True)
        return [sum(w * a for w, a in zip(row, v, strict=True)) + b for row, b in rows]

    conv_width = h * p + 2 * g * n
    conv_bias = W.get("conv1d.bias", [0.0] * conv_width)
    past = [[0.0] * conv_width for _ in range(k - 1)]
    zeros = [[[0.0] * n for _ in range(p)] for _ in range(h)]
    S = W.get("init_states", zeros)
    ys, deltas = [], []
    for x_t in x.tolist():
        row = linear("in_proj", x_t)
        z0, x0, z, xBC, dt = (
            row[:m],
            row[m : 2 * m],
            row[2 * m : 2 * m + h * p],
            row[2 * m + h * p : -h],
            row[-h:],
        )
        window = [*past, xBC]
        past = window[1:]
        conv = [
            silu(conv_bias[e] + sum(W["conv1d.weight"][e][0][j] * window[j][e] for j in range(k)))
            for e in range(conv_width)
        ]
        B, C = conv[h * p : h * p + g * n], conv[h * p + g * n :]
        y, delta = [], []
        for head in range(h):
            raw = math.log1p(math.exp(dt[head] + W["dt_bias"][head]))
            step = min(max(raw, c.dt_limit[0]), c.dt_limit[1])
            delta.append(step)
            decay = math.exp(-step * math.exp(W["A_log"][head]))
            at = head // (h // g) * n
            for q in range(p):
                u = conv[head * p + q]
                for i in range(n):
                    S[head][q][i] = decay * S[head][q][i] + step * u * B[at + i]
                skip = W["D"][head * p + q] if c.D_has_hdim else W["D"][head]
                y.append(sum(S[head][q][i] * C[at + i] for i in range(n)) + skip * u)
        gate = [silu(v) for v in z]
        gated = [a * b for a, b in zip(y, gate, strict=True)]
        if not c.rmsnorm:
            y = gated
        elif c.norm_before_gate:
            pairs = zip(normed(y, W["norm.weight"], g), gate, strict=True)
            y = [a * b for a, b in pairs]
        else:
            y = normed(gated, W["norm.weight"], g)
        mlp = [silu(a) * b for a, b in zip(z0, x0, strict=True)]
        ys.append(linear("out_proj", mlp + y))
        deltas.append(delta)
    return torch.tensor(ys, dtype=torch.float64), torch.tensor(deltas, dtype=torch.float64)


def strong(d_model: int, config: Mamba2Config, seed: int = 0) -> Mamba2:
    """A layer whose every parameter matters: weights of order 1, step sizes of order 0.5."""
    torch.manual_seed(seed)
    layer = Mamba2(d_model, config)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.5)
        layer.dt_bias.uniform_(-1.5, 0.5)
        layer.A_log.uniform_(-1, 1)
    return layer


PLAIN = {"d_state": 3, "headdim": 3}  # of a model of width 6: four heads
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": PLAIN,
    "groups": PLAIN | {"ngroups": 2},
    "a group per head": PLAIN | {"ngroups": 4, "d_conv": 2},
    "skip per channel": PLAIN | {"D_has_hdim": True},
    "no norm": PLAIN | {"rmsnorm": False, "ngroups": 2},
    "norm before gate": PLAIN | {"norm_before_gate": True, "ngroups": 2},
    "partly MLP": PLAIN | {"d_ssm": 9, "ngroups": 3},
    "partly MLP, no norm": PLAIN | {"d_ssm": 3, "rmsnorm": False, "D_has_hdim": True},
    "limited step sizes": PLAIN | {"dt_limit": (0.3, 0.6)},
    "initial states": PLAIN | {"learnable_init_states": True},
    "biases": PLAIN | {"bias": True, "conv_bias": False, "chunk_size": 4},
    "one of each": {"d_state": 1, "headdim": 1, "d_conv": 1, "expand": 1},
}


@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_equals_the_equations(name: str) -> None:
    layer = strong(6, Mamba2Config(**VARIANTS[name])).double()
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
        (torch.float32, torch.float32, 2e-5),
        (torch.float32, torch.float64, 2e-5),
        (torch.bfloat16, torch.float32, 3e-2),
        (torch.float16, torch.float32, 5e-3),
    ],
)
def test_single_steps_with_and_without_a_gradient_agree(
    name: str, dtype: torch.dtype, state_dtype: torch.dtype, tol: float
) -> None:
    """Without a gradient other operators run, which write in place: into a copy of the state."""
    layer = strong(6, Mamba2Config(**VARIANTS[name])).to(dtype)
    x = torch.randn(2, 6, dtype=dtype)
    start = layer.initial_state(2)
    state = Mamba2State(*(torch.randn_like(part, dtype=state_dtype) for part in start))
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
        assert isinstance(other, Mamba2State)


def test_single_step_without_a_gradient_runs_the_step_operators(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the operator for whole sequences was called")

    layer = Mamba2(32)
    state = layer.initial_state(2)
    monkeypatch.setattr("ssm_core.layers.mamba2.ssd_scan", refuse)
    monkeypatch.setattr("ssm_core.layers.mamba2.causal_conv1d", refuse)
    with torch.no_grad():
        layer.step(torch.randn(2, 32), state)
        layer(torch.randn(2, 1, 32), state=state)
        with pytest.raises(AssertionError, match="whole sequences"):
            layer(torch.randn(2, 2, 32), state=state)
    with pytest.raises(AssertionError, match="whole sequences"):
        layer.step(torch.randn(2, 32), state)


def test_learned_initial_states_are_those_of_every_sequence_and_learn() -> None:
    layer = strong(6, Mamba2Config(d_state=3, headdim=3, learnable_init_states=True)).double()
    assert layer.init_states is not None
    state = layer.initial_state(3)
    assert state.ssm.shape == (3, 4, 3, 3)
    assert torch.equal(state.ssm[2], layer.init_states)
    assert not state.conv.any()
    x = torch.randn(1, 9, 6, dtype=torch.float64)
    offsets = torch.tensor([0, 4, 4, 9])
    y, final = layer(x, cu_seqlens=offsets, return_state=True)
    torch.testing.assert_close(y[:, :4], layer(x[:, :4]), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(y[:, 4:], layer(x[:, 4:]), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(final.ssm[1], layer.init_states)
    assert layer.step(x[0, :3], state)[0].requires_grad
    for result in (y, layer(x, state=layer.initial_state(1))):
        (gradient,) = torch.autograd.grad(result.square().sum(), layer.init_states)
        assert gradient.abs().min() > 0


def test_step_sizes_outside_the_limits_have_no_gradient() -> None:
    layer = Mamba2(8, Mamba2Config(d_state=3, headdim=4, dt_limit=(0.3, 0.6)))
    with torch.no_grad():
        layer.in_proj.weight.mul_(0.01)
        layer.dt_bias.copy_(torch.tensor([-3.0, -0.5, 3.0, -0.4]))  # 0.05, 0.47, 3.0, 0.51
    layer(torch.randn(2, 9, 8)).square().sum().backward()
    assert layer.dt_bias.grad is not None
    assert (layer.dt_bias.grad != 0).tolist() == [False, True, False, True]
    delta = layer.step_sizes(torch.randn(2, 9, 8))
    assert delta.shape == (2, 9, 4)
    assert delta.min() == torch.tensor(0.3)
    assert delta.max() == torch.tensor(0.6)


def test_initial_values() -> None:
    torch.manual_seed(0)
    layer = Mamba2(512, Mamba2Config(headdim=1, A_init_range=(2.0, 10.0), conv_init=0.01))
    A = layer.A_log.detach().double().exp()
    u = ((A - 2) / 8).sort().values
    uniform = (torch.arange(1024, dtype=torch.float64) + 0.5) / 1024
    assert (u - uniform).abs().max() < 1.63 / 32  # Kolmogorov-Smirnov at 1 %, n = 1024
    dt = F.softplus(layer.dt_bias.detach().double())
    assert dt.min() >= 0.999e-3
    assert dt.max() <= 0.1001
    u = ((dt.log() - math.log(1e-3)) / math.log(100)).sort().values
    assert (u - uniform).abs().max() < 1.63 / 32
    assert torch.equal(layer.D, torch.ones(1024))
    assert layer.norm is not None
    assert torch.equal(layer.norm.weight, torch.ones(1024))
    assert 0.0099 < layer.conv1d.weight.abs().max() <= 0.01
    assert 0.4 < Mamba2(64).conv1d.weight.abs().max() <= 0.5
    assert layer.in_proj.weight.abs().max() <= 512**-0.5
    floor = F.softplus(Mamba2(64, Mamba2Config(headdim=1, dt_init_floor=0.05)).dt_bias)
    assert floor.min() >= 0.0499


@pytest.mark.parametrize(("d_model", "headdim"), [(32, 64), (96, 64), (24, 16), (7, 2)])
def test_heads_fit_any_width(d_model: int, headdim: int) -> None:
    """64 channels as in the published models, or what divides a narrow one."""
    layer = Mamba2(d_model, Mamba2Config(d_state=2))
    assert layer.sizes.headdim == headdim
    assert layer.A_log.shape == (2 * d_model // headdim,)
    assert layer(torch.zeros(1, 3, d_model)).shape == (1, 3, d_model)


def test_marks_for_optimisers_and_initialisers() -> None:
    layer = Mamba2(8, Mamba2Config(headdim=4, learnable_init_states=True))
    no_decay = {n for n, p in layer.named_parameters() if getattr(p, "_no_weight_decay", False)}
    no_reinit = {n for n, p in layer.named_parameters() if getattr(p, "_no_reinit", False)}
    assert no_decay == {"A_log", "D", "dt_bias", "init_states"}
    assert no_reinit == {"dt_bias"}
    assert {p.dtype for p in layer.parameters()} == {torch.float32}


def test_state_and_results_keep_their_types() -> None:
    layer = Mamba2(6, Mamba2Config(d_state=5, headdim=4)).bfloat16()
    start = layer.initial_state(3)
    y, end = layer(torch.randn(3, 2, 6, dtype=torch.bfloat16), return_state=True)
    assert y.dtype == torch.bfloat16
    for state in (start, end):
        assert isinstance(state, Mamba2State)
        assert state.conv.shape == (3, 12 + 10, 3)
        assert state.ssm.shape == (3, 3, 4, 5)
        assert state.conv.dtype == state.ssm.dtype == torch.float32
