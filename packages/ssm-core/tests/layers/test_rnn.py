"""The RNN baseline: the equation as a loop, its output projection, its options."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ssm_core.errors import ConfigError
from ssm_core.layers.rnn import RNN, RNNConfig


@pytest.mark.parametrize("hidden", [None, 5, 7])
@torch.no_grad()
def test_equals_the_equation(hidden: int | None) -> None:
    torch.manual_seed(0)
    layer = RNN(5, RNNConfig(hidden)).double()
    x = torch.randn(2, 6, 5, dtype=torch.float64)
    W = dict(layer.rnn.named_parameters())
    h = torch.zeros(2, hidden or 5, dtype=torch.float64)
    expected = []
    for x_t in x.unbind(1):
        drive = x_t @ W["weight_ih_l0"].T + W["bias_ih_l0"] + W["bias_hh_l0"]
        h = torch.tanh(drive + h @ W["weight_hh_l0"].T)
        expected.append(layer.out_proj(h))
    y, state = layer(x, return_state=True)
    torch.testing.assert_close(y, torch.stack(expected, 1), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state.hidden, h, rtol=1e-12, atol=1e-12)


def test_output_projection_only_where_the_widths_differ() -> None:
    assert isinstance(RNN(5).out_proj, nn.Identity)
    assert isinstance(RNN(5, RNNConfig(hidden=5)).out_proj, nn.Identity)
    assert isinstance(RNN(5, RNNConfig(hidden=4)).out_proj, nn.Linear)


@pytest.mark.parametrize(("d", "h"), [(64, 64), (64, 100)])
def test_number_of_parameters(d: int, h: int) -> None:
    expected = h * d + h * h + 2 * h + (0 if h == d else d * h + d)
    assert sum(p.numel() for p in RNN(d, RNNConfig(h)).parameters()) == expected


def test_as_many_hidden_units_as_channels_have_an_output_map_if_wanted() -> None:
    torch.manual_seed(0)
    layer = RNN(5, RNNConfig(project=True))
    x = torch.randn(2, 6, 5)
    torch.testing.assert_close(layer(x), layer.out_proj(layer.rnn(x)[0]))
    assert sum(p.numel() for p in layer.parameters()) == sum(
        p.numel() for p in RNN(5).parameters()
    ) + 5 * (5 + 1)
    with pytest.raises(ConfigError) as caught:
        RNN(5, RNNConfig(hidden=3, project=False))
    assert str(caught.value) == ("RNN: project is False with hidden 3, expected hidden d_model = 5")


def test_relu_is_used() -> None:
    torch.manual_seed(0)
    y = RNN(5, RNNConfig(nonlinearity="relu"))(100 * torch.randn(2, 6, 5))
    assert y.min() == 0
    assert y.max() > 1  # tanh cannot


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": 0}, "RNNConfig: hidden is 0, expected an integer of at least 1"),
        (
            {"nonlinearity": "gelu"},
            "RNNConfig: nonlinearity is 'gelu', expected 'tanh' or 'relu'",
        ),
    ],
)
def test_config_errors(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RNNConfig(**options)  # type: ignore[arg-type]
    assert str(caught.value) == message
