"""S5 against its equations as loops, and against the official values."""

from __future__ import annotations

import cmath
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from s5_cases import strong
from safetensors.torch import load_file
from torch import Tensor

from ssm_core.layers.s5 import S5
from ssm_core.layers.s5_config import S5Config

DATA = Path(__file__).parents[1] / "data"


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def gelu(x: float) -> float:
    return 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def scan(layer: S5, W: dict[str, Any], u: list[list[float]]) -> list[list[complex]]:
    """The states after each step, by the paper's equations."""
    config, states = layer.config, []
    x = [0j] * len(W["B"])
    for u_t in u:
        for i, row in enumerate(W["B"]):
            decay = min(W["Lambda_re"][i], -1e-4) if config.clip_eigs else W["Lambda_re"][i]
            Lambda = complex(decay, W["Lambda_im"][i])
            step = config.step_rescale * math.exp(W["log_step"][i][0])
            if config.discretization == "zoh":
                Lb = cmath.exp(Lambda * step)
                gain = (Lb - 1) / Lambda
            else:
                gain = step / (1 - Lambda * step / 2)
                Lb = (1 + Lambda * step / 2) / (1 - Lambda * step / 2)
            driven = sum(complex(*b) * v for b, v in zip(row, u_t, strict=True))
            x[i] = Lb * x[i] + gain * driven
        states.append(list(x))
    return states


def model_loop(layer: S5, W: dict[str, Any], u: list[list[float]]) -> list[list[float]]:
    """The outputs before the activation."""
    states = scan(layer, W, u)
    C = W.get("C")
    if layer.config.bidirectional:
        backward = scan(layer, W, u[::-1])[::-1]
        states = [f + b for f, b in zip(states, backward, strict=True)]
        if C is None:
            C = [c1 + c2 for c1, c2 in zip(W["C1"], W["C2"], strict=True)]
    k = 2 if layer.config.conj_sym else 1
    return [
        [
            k * sum(complex(*c) * v for c, v in zip(row, x, strict=True)).real + d * u_j
            for row, d, u_j in zip(C, W["D"], u_t, strict=True)
        ]
        for x, u_t in zip(states, u, strict=True)
    ]


def loop(layer: S5, u: Tensor) -> Tensor:
    """Run one sequence u (l, h) number by number."""
    W = {name: value.double().tolist() for name, value in layer.state_dict().items()}

    def linear(name: str, v: list[float]) -> list[float]:
        rows = zip(W[f"{name}.weight"], W[f"{name}.bias"], strict=True)
        return [sum(w * a for w, a in zip(row, v, strict=True)) + b for row, b in rows]

    outputs = []
    for y in model_loop(layer, W, u.tolist()):
        g = [gelu(v) for v in y]
        kind = layer.config.activation
        if kind in ("half_glu1", "half_glu2", "full_glu"):
            value = {"half_glu1": g, "half_glu2": y}.get(kind) or linear("out1", g)
            g = [v * sigmoid(w) for v, w in zip(value, linear("out2", g), strict=True)]
        outputs.append(y if kind is None else g)
    return torch.tensor(outputs, dtype=torch.float64)


each_option = {
    "d_state, blocks, conj_sym": st.sampled_from(
        [(8, 1, True), (8, 4, True), (6, 2, False), (5, 1, False), (2, 1, True), (1, 1, False)]
    ),
    "clip_eigs": st.booleans(),
    "bidirectional": st.booleans(),
    "discretization": st.sampled_from(["zoh", "bilinear"]),
    "C_init": st.sampled_from(["trunc_standard_normal", "lecun_normal", "complex_normal"]),
    "step_rescale": st.sampled_from([1.0, 2.0, 0.3]),
    "activation": st.sampled_from(["half_glu1", "half_glu2", "full_glu", "gelu", None]),
}


@given(st.fixed_dictionaries(each_option))
@settings(max_examples=30, deadline=None)
@torch.no_grad()
def test_equals_the_equations(options: dict[str, Any]) -> None:
    d_state, blocks, conj_sym = options.pop("d_state, blocks, conj_sym")
    layer = strong(3, S5Config(d_state, blocks, conj_sym, **options))
    x = torch.randn(2, 7, 3, dtype=torch.float64)
    for y, sequence in zip(layer(x), x, strict=True):
        torch.testing.assert_close(y, loop(layer, sequence), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@torch.no_grad()
def test_official_values(dtype: torch.dtype) -> None:
    tensors = load_file(DATA / "s5_uni_zoh.safetensors")
    layer = S5(6, S5Config(d_state=16, activation=None))
    layer.load_state_dict({k[3:]: v for k, v in tensors.items() if k.startswith("sd.")})
    x, expected = tensors["x"].to(dtype), tensors["y"].to(dtype)
    y = layer.to(dtype)(x.unsqueeze(0)).squeeze(0)
    assert (y - expected).abs().max() < 1e-6 * expected.abs().max()
