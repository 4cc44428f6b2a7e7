"""The attention baseline: softmax written out, masks of chunks, the growing state, its options."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ssm_core.errors import ConfigError
from ssm_core.layers.attention import Attention, AttentionConfig


def written_out(layer: Attention, x: Tensor) -> Tensor:
    """Softmax attention head by head, step by step."""
    _, l, d = x.shape
    p = layer.config.headdim or d // layer.config.n_heads
    inner = p * layer.config.n_heads
    queries, keys, values = (x @ layer.in_proj.weight.T + layer.in_proj.bias).split(inner, dim=2)
    y = torch.empty_like(queries)
    for head in range(layer.config.n_heads):
        part = slice(head * p, (head + 1) * p)
        for t in range(l):
            seen = t + 1 if layer.causal else l
            scores = keys[:, :seen, part] @ queries[:, t, part].unsqueeze(2) / math.sqrt(p)
            y[:, t, part] = (scores.softmax(dim=1) * values[:, :seen, part]).sum(1)
    return y @ layer.out_proj.weight.T + layer.out_proj.bias


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("n_heads", "headdim"), [(1, None), (3, None), (4, 5), (1, 2)])
@torch.no_grad()
def test_equals_softmax_attention(causal: bool, n_heads: int, headdim: int | None) -> None:
    torch.manual_seed(0)
    layer = Attention(6, AttentionConfig(n_heads, causal, headdim=headdim)).double()
    x = 3 * torch.randn(2, 9, 6, dtype=torch.float64)
    torch.testing.assert_close(layer(x), written_out(layer, x), rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_state_holds_every_step_seen() -> None:
    layer = Attention(6, AttentionConfig(n_heads=2))
    state = layer.initial_state(3)
    assert state.keys.shape == (3, 2, 0, 3)
    for length in (2, 3, 0, 1):
        _, state = layer(torch.randn(3, length, 6), state=state, return_state=True)
    assert state.keys.shape == state.values.shape == (3, 2, 6, 3)


def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(0)
    layer = Attention(6, AttentionConfig(n_heads=2, dropout=0.5))
    x = torch.randn(2, 9, 6)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))


@pytest.mark.parametrize("bias", [True, False])
def test_number_of_parameters(bias: bool) -> None:
    d = 64
    layer = Attention(d, AttentionConfig(bias=bias))
    assert sum(p.numel() for p in layer.parameters()) == 4 * d * d + (4 * d if bias else 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_heads": 0}, "AttentionConfig: n_heads is 0, expected an integer of at least 1"),
        (
            {"headdim": 0},
            "AttentionConfig: headdim (a number or None) is 0, expected an integer of at least 1",
        ),
        ({"dropout": 1.0}, "AttentionConfig: dropout is 1.0, expected a number in [0, 1)"),
        ({"dropout": "no"}, "AttentionConfig: dropout is 'no', expected a number in [0, 1)"),
    ],
)
def test_config_errors(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        AttentionConfig(**options)  # type: ignore[arg-type]
    assert str(caught.value) == message


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ConfigError) as caught:
        Attention(6, AttentionConfig(n_heads=4))
    assert str(caught.value) == "Attention: n_heads is 4, expected a divisor of d_model = 6"
