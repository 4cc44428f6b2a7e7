"""S5: options, single steps, states, marks for optimizers, errors."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from s5_cases import strong

from ssm_core import build_mixer
from ssm_core.errors import ConfigError
from ssm_core.layers.s5 import S5, S5State
from ssm_core.layers.s5_config import S5Config
from ssm_core.train.optim import parameter_groups

BARE = S5Config(d_state=8, activation=None)


@torch.no_grad()
def test_step_rescale_is_a_change_of_the_step_sizes() -> None:
    layer = strong(4, BARE)
    rescaled = S5(4, dataclasses.replace(BARE, step_rescale=2.0)).double()
    rescaled.load_state_dict(layer.state_dict())
    x = torch.randn(1, 9, 4, dtype=torch.float64)
    y = rescaled(x)
    assert not torch.allclose(y, layer(x))
    layer.log_step += math.log(2)
    torch.testing.assert_close(y, layer(x), rtol=1e-12, atol=1e-12)


def test_clipping_leaves_the_parameter_and_its_other_gradients_alone() -> None:
    layer = strong(4, dataclasses.replace(BARE, clip_eigs=True))
    with torch.no_grad():
        layer.Lambda_re.copy_(torch.tensor([-1.0, 2.0, -0.5, 0.0]))
    y = layer(torch.randn(1, 5000, 4, dtype=torch.float64))
    y.square().mean().backward()
    assert y.isfinite().all()
    assert layer.Lambda_re.tolist() == [-1.0, 2.0, -0.5, 0.0]
    assert (layer.Lambda_re.grad != 0).tolist() == [True, False, True, False]
    assert (layer.Lambda_im.grad != 0).all()


def test_a_single_step_has_the_same_gradients_as_a_sequence() -> None:
    """For one step other products run than for two."""
    layer = strong(5, S5Config(d_state=8))
    x = torch.randn(3, 1, 5, dtype=torch.float64)
    state = torch.randn(3, 4, dtype=torch.complex128, requires_grad=True)
    inputs = [state, *layer.parameters()]
    y, last = layer(x, S5State(state), return_state=True)
    longer, states = layer(x.expand(3, 2, 5), S5State(state), return_state=True)
    torch.testing.assert_close(y, longer[:, :1], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(last.x, states.x)
    for got, expected in zip(
        torch.autograd.grad(y.sin().sum(), inputs),
        torch.autograd.grad(longer[:, 0].sin().sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


def test_state_shapes_and_types() -> None:
    for dtype, expected in (
        (torch.bfloat16, torch.complex64),
        (torch.float32, torch.complex64),
        (torch.float64, torch.complex128),
    ):
        layer = S5(6, S5Config(d_state=12, blocks=3)).to(dtype)
        start = layer.initial_state(3)
        for length in (0, 1, 2):
            x = torch.randn(3, length, 6).to(dtype)
            y, end = layer(x, start, return_state=True)
            assert y.dtype is dtype
            assert isinstance(end, S5State)
            assert end.x.shape == start.x.shape == (3, 6)
            assert end.x.dtype is start.x.dtype is expected


def test_marks_reach_the_optimizer() -> None:
    """The groups of "standard": Lambda, B and the step sizes at their own rate, without decay."""
    layer = S5(4, S5Config(d_state=8, lr=2e-4))
    groups = parameter_groups(layer, 0.05)
    names = {id(p): n for n, p in layer.named_parameters()}
    found = {
        (group.get("lr"), group["weight_decay"]): {names[id(p)] for p in group["params"]}
        for group in groups
    }
    assert found == {
        (2e-4, 0.0): {"Lambda_re", "Lambda_im", "B", "log_step"},
        (None, 0.05): {"C", "out2.weight"},
        (None, 0.0): {"D", "out2.bias"},
    }
    (own,) = (g for g in parameter_groups(S5(4, S5Config(lr=None)), 0.0) if len(g["params"]) > 3)
    assert "lr" not in own
    kept = {n for n, p in layer.named_parameters() if getattr(p, "_no_reinit", False)}
    assert kept == {"Lambda_re", "Lambda_im", "B", "log_step", "C"}


def test_built_by_name() -> None:
    options = {"d_state": 4, "activation": None, "bidirectional": True, "lr": None}
    layer = build_mixer("s5", 6, options)
    assert isinstance(layer, S5)
    assert layer.config == S5Config(d_state=4, activation=None, bidirectional=True, lr=None)
    assert not layer.causal


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_state": 0}, "d_state is 0, expected an integer of at least 1"),
        ({"blocks": 1.5}, "blocks is 1.5, expected an integer of at least 1"),
        (
            {"d_state": 16, "blocks": 3, "conj_sym": False},
            "d_state is 16 with 3 blocks, expected a multiple of blocks = 3",
        ),
        (
            {"d_state": 12, "blocks": 4},
            "d_state is 12 with 4 blocks, expected a multiple of 2 * blocks (conj_sym) = 8",
        ),
        ({"discretization": "euler"}, "discretization is 'euler', expected 'zoh' or 'bilinear'"),
        (
            {"C_init": "normal"},
            "C_init is 'normal', expected 'trunc_standard_normal' or 'lecun_normal' or "
            "'complex_normal'",
        ),
        (
            {"activation": "glu"},
            "activation is 'glu', expected 'half_glu1' or 'half_glu2' or 'full_glu' or 'gelu'",
        ),
        ({"dropout": 1.0}, "dropout is 1.0, expected a number in [0, 1)"),
        ({"dt_min": 0.2}, "dt_min is 0.2 and dt_max 0.1, expected 0 < dt_min <= dt_max"),
        ({"step_rescale": 0.0}, "step_rescale is 0.0, expected a number above 0"),
        ({"lr": -1.0}, "lr is -1.0, expected a number from 0 or None"),
    ],
)
def test_config_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        S5Config(**options)
    assert str(caught.value) == f"S5Config: {message}"


def test_width_must_be_positive() -> None:
    with pytest.raises(ConfigError, match="S5: d_model is 0, expected an integer of at least 1"):
        S5(0)
