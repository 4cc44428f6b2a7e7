from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssm_core.errors import ConfigError
from ssm_text.rotary_attention import RotaryAttention
from ssm_text.rotary_attention_config import RotaryAttentionConfig


def make(**options):
    torch.manual_seed(0)
    layer = RotaryAttention(8, RotaryAttentionConfig(**options)).double().eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return layer


def slowly(layer, x):
    """One sequence x (l, d), head by head and step by step."""
    config, p = layer.config, layer.headdim
    rows = x @ layer.in_proj.weight.T
    if config.qkv_bias:
        rows = rows + layer.in_proj.bias
    if config.d_conv:
        taps = layer.conv1d.weight[:, 0]
        padded = torch.cat([rows.new_zeros(config.d_conv - 1, rows.shape[1]), rows])
        rows = torch.stack(
            [
                sum(padded[t + k] * taps[:, k] for k in range(config.d_conv)) + layer.conv1d.bias
                for t in range(len(x))
            ]
        )

    def turned(row, position):
        row, half = row.clone(), config.rotary_dim // 2
        for i in range(half):
            angle = position / config.rotary_base ** (2 * i / config.rotary_dim)
            j, k = (2 * i, 2 * i + 1) if config.rotary_interleaved else (i, i + half)
            one, two = float(row[j]), float(row[k])
            row[j] = one * math.cos(angle) - two * math.sin(angle)
            row[k] = one * math.sin(angle) + two * math.cos(angle)
        return row

    y = rows.new_zeros(len(x), config.n_heads * p)
    kv_heads = config.n_heads_kv or config.n_heads
    for h in range(config.n_heads):
        group = h // (config.n_heads // kv_heads)
        key = (config.n_heads + group) * p
        value = (config.n_heads + kv_heads + group) * p
        for t in range(len(x)):
            q = turned(rows[t, h * p : (h + 1) * p], t)
            keys = [turned(rows[s, key : key + p], s) for s in range(t + 1)]
            weights = torch.stack([q @ k / math.sqrt(p) for k in keys]).softmax(0)
            y[t, h * p : (h + 1) * p] = weights @ rows[: t + 1, value : value + p]
    out = y @ layer.out_proj.weight.T
    return out + layer.out_proj.bias if config.out_bias else out


OPTIONS = st.fixed_dictionaries(
    {
        "headdim": st.sampled_from([4, 6]),
        "n_heads_kv": st.sampled_from([None, 1, 2]),
        "d_conv": st.integers(0, 4),
        "rotary_dim": st.sampled_from([0, 2, 4]),
        "rotary_base": st.sampled_from([10.0, 10000.0]),
        "rotary_interleaved": st.booleans(),
        "qkv_bias": st.booleans(),
        "out_bias": st.booleans(),
    }
)


@settings(max_examples=25, deadline=None)
@given(options=OPTIONS, l=st.integers(1, 6), cut=st.integers(0, 6))
@torch.no_grad()
def test_whole_pieces_and_steps(options, l, cut):
    layer = make(n_heads=2, **options)
    x = torch.randn(2, l, 8, dtype=torch.float64)
    expected = torch.stack([slowly(layer, row) for row in x])
    torch.testing.assert_close(layer(x), expected, rtol=1e-9, atol=1e-9)
    cut = min(cut, l)
    first, state = layer(x[:, :cut], return_state=True)
    second, _ = layer(x[:, cut:], state=state, return_state=True)
    torch.testing.assert_close(torch.cat([first, second], 1), expected, rtol=1e-9, atol=1e-9)
    state = layer.initial_state(2)
    for t in range(l):
        y, state = layer.step(x[:, t], state)
        torch.testing.assert_close(y, expected[:, t], rtol=1e-9, atol=1e-9)


@settings(max_examples=15, deadline=None)
@given(
    rows=st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=3),
    d_conv=st.sampled_from([0, 3]),
)
@torch.no_grad()
def test_padding_is_skipped(rows, d_conv):
    """Also on the way on: positions count the steps of each sequence alone."""
    layer = make(n_heads=2, rotary_dim=4, d_conv=d_conv)
    mask = torch.tensor(rows)
    x, more = torch.randn(2, *mask.shape, 8, dtype=torch.float64)
    _, state = layer(x, mask=mask, return_state=True)
    y, _ = layer(more, state=state, return_state=True)
    for i in range(len(rows)):
        expected = slowly(layer, torch.cat([x[i][mask[i]], more[i]]))
        torch.testing.assert_close(y[i], expected[-5:], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_heads": 3}, "n_heads is 3, expected a divisor of d_model = 8"),
        ({"n_heads": 4, "n_heads_kv": 3}, "n_heads_kv is 3"),
        ({"rotary_dim": 3}, "rotary_dim is 3, expected an even"),
        ({"rotary_dim": 4}, "rotary_dim is 4, expected at most the 2"),
        ({"rotary_base": 1.0}, "rotary_base is 1.0"),
        ({"d_conv": -1}, "d_conv is -1"),
        ({"headdim": 0}, "headdim"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ConfigError, match=message):
        make(**options)
