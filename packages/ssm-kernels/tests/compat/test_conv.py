"""The convolution in the original's layout: whole sequences, packed ones, and new samples."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shim_cases import close, gradients, leaves, silu
from torch import Tensor

from ssm_kernels.compat.conv_interface import causal_conv1d_fn, causal_conv1d_ref
from ssm_kernels.compat.conv_update import causal_conv1d_update, causal_conv1d_update_ref
from ssm_kernels.compat.conv_varlen import causal_conv1d_varlen_states

ACTIVATIONS = [None, "silu", "swish"]


def slow_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, seq_idx: Tensor, initial: Tensor | None
) -> Tensor:
    """Every output on its own: the taps on samples with the id of the output."""
    b, d, l = x.shape
    k = weight.shape[1]
    rows = []
    for i in range(b):
        before = x.new_zeros(d, k - 1) if initial is None else initial[i]
        samples = torch.cat([before, x[i]], dim=1)
        ids = [int(seq_idx[i, 0])] * (k - 1) + seq_idx[i].tolist()
        steps = []
        for t in range(l):
            taps = [
                weight[:, j] * samples[:, t + j] for j in range(k) if ids[t + j] == ids[t + k - 1]
            ]
            y = sum(taps) if bias is None else sum(taps) + bias
            steps.append(y)
        rows.append(torch.stack(steps, -1))
    return torch.stack(rows)


def draw_ids(draw: st.DrawFn, b: int, l: int) -> Tensor:
    """Runs of rising ids, as packed batches have them."""
    rows = [draw(st.lists(st.booleans(), min_size=l, max_size=l)) for _ in range(b)]
    return torch.tensor(rows).to(torch.int32).cumsum(1).to(torch.int32)


@given(st.data())
@settings(max_examples=25, deadline=None)
@pytest.mark.parametrize("function", [causal_conv1d_fn, causal_conv1d_ref])
def test_values_and_gradients(function: Any, data: st.DataObject) -> None:
    b, d, l = (data.draw(st.integers(1, high)) for high in (3, 4, 7))
    k = data.draw(st.integers(2, 4))
    torch.manual_seed(data.draw(st.integers(0, 999)))
    tensors = (
        torch.randn(b, l, d).transpose(1, 2) if data.draw(st.booleans()) else torch.randn(b, d, l),
        torch.randn(d, k),
        torch.randn(d) if data.draw(st.booleans()) else None,
        torch.randn(b, d, k - 1) if data.draw(st.booleans()) else None,
    )
    tensors = tuple(None if x is None else x.double() for x in tensors)
    packed = data.draw(st.booleans())
    seq_idx = draw_ids(data.draw, b, l) if packed else torch.zeros(b, l, dtype=torch.int32)
    activation = data.draw(st.sampled_from(ACTIVATIONS))

    mine, slow = leaves(tensors), leaves(tensors)
    y = function(
        *mine[:3],
        seq_idx=seq_idx if packed else None,
        initial_states=mine[3],
        activation=activation,
    )
    expected = slow_conv(*slow[:3], seq_idx, slow[3])
    expected = expected if activation is None else silu(expected)
    close(y, expected)
    cotangent = torch.randn_like(expected)
    for got, right in zip(
        gradients(y, mine, cotangent), gradients(expected, slow, cotangent), strict=True
    ):
        close(got, right)


def test_layout_and_type_of_the_result() -> None:
    x, weight = torch.randn(2, 4, 6), torch.randn(4, 3)
    assert causal_conv1d_fn(x, weight).is_contiguous()
    last = causal_conv1d_fn(x.transpose(1, 2).contiguous().transpose(1, 2), weight)
    assert last.stride() == (24, 1, 4)
    assert causal_conv1d_fn(x.bfloat16(), weight).dtype is torch.bfloat16


def test_steps_of_no_sequence_are_zero() -> None:
    ids = torch.tensor([[0, 0, -1, 1]], dtype=torch.int32)
    y = causal_conv1d_fn(torch.randn(1, 2, 4), torch.randn(2, 2), torch.ones(2), seq_idx=ids)
    assert (y[:, :, 2] == 0).all()
    assert (y[:, :, :2] != 0).all()


def test_the_activation_where_older_versions_have_it() -> None:
    x, weight, bias = torch.randn(2, 4, 6), torch.randn(4, 3), torch.randn(4)
    expected = causal_conv1d_fn(x, weight, bias, activation="silu")
    assert torch.equal(causal_conv1d_fn(x, weight, bias, "silu"), expected)
    assert torch.equal(causal_conv1d_fn(x, weight, bias, None, "swish"), expected)
    close(causal_conv1d_ref(x, weight, bias, "silu"), expected, 1e-5)


def test_final_states_go_on() -> None:
    x, weight = torch.randn(2, 3, 9), torch.randn(3, 4)
    whole = causal_conv1d_fn(x, weight, activation="silu")
    out = torch.full((2, 3, 3), torch.nan)
    first, states = causal_conv1d_fn(
        x[..., :5], weight, return_final_states=True, final_states_out=out, activation="silu"
    )
    assert states is out
    assert torch.equal(out, x[..., 2:5])
    second = causal_conv1d_fn(x[..., 5:], weight, initial_states=states, activation="silu")
    close(torch.cat([first, second], -1), whole, 1e-6)


def test_what_is_not_supported_says_so() -> None:
    x, weight = torch.randn(1, 2, 4), torch.randn(2, 2)
    with pytest.raises(NotImplementedError, match="activation is 'gelu'"):
        causal_conv1d_fn(x, weight, activation="gelu")
    ids = torch.zeros(1, 4, dtype=torch.int32)
    with pytest.raises(NotImplementedError, match=r"return_final_states.*varlen_states"):
        causal_conv1d_fn(x, weight, seq_idx=ids, return_final_states=True)


@pytest.mark.parametrize("update", [causal_conv1d_update, causal_conv1d_update_ref])
@pytest.mark.parametrize("ring", [False, True])
def test_new_samples_continue_the_sequence(update: Any, ring: bool) -> None:
    x = torch.randn(2, 3, 7, dtype=torch.float64)
    weight, bias = torch.randn(3, 4).double(), torch.nn.Parameter(torch.randn(3).double())
    whole = causal_conv1d_fn(x, weight, bias, activation="silu")
    state, count = torch.zeros(2, 3, 5, dtype=torch.float64), torch.zeros(2, dtype=torch.int32)
    found = []
    for piece in (x[..., 0], x[..., 1:4], x[..., 4:]):
        y = update(piece, state, weight, bias, "swish", cache_seqlens=count if ring else None)
        assert not y.requires_grad
        assert y.shape == piece.shape
        found.append(y.reshape(2, 3, -1))
        count += found[-1].shape[-1]
    close(torch.cat(found, -1), whole)
    last = x[..., 2:]  # sample t lies in slot t mod 5 of a ring
    assert torch.equal(state, last.roll(2, -1) if ring else last)


def test_rows_of_a_larger_state() -> None:
    x, weight = torch.randn(3, 2), torch.randn(2, 3)
    state = torch.randn(5, 2, 2)
    before = state.clone()
    rows = torch.tensor([4, -1, 0], dtype=torch.int32)
    y = causal_conv1d_update(x, state, weight, conv_state_indices=rows)
    own = before[[4, 0]].clone()
    expected = causal_conv1d_update(x[[0, 2]], own, weight)
    close(y, torch.stack([expected[0], torch.zeros(2), expected[1]]), 1e-6)
    assert torch.equal(state[[4, 0]], own)
    assert torch.equal(state[1:4], before[1:4])


def test_states_of_packed_sequences() -> None:
    x = torch.arange(1.0, 13.0).view(6, 2)
    states = causal_conv1d_varlen_states(x, torch.tensor([0, 4, 4, 6], dtype=torch.int32), 3)
    expected = torch.zeros(3, 3, 2)
    expected[0], expected[2, 1:] = x[1:4], x[4:6]
    assert torch.equal(states, expected.transpose(1, 2))
