"""The decode step in the original's shapes against the equations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shim_cases import close, silu
from torch import Tensor

from ssm_kernels.compat.state_update import selective_state_update, selective_state_update_ref


def slow_step(state: Tensor, step: tuple[Any, ...], softplus: bool) -> tuple[Tensor, Tensor]:
    """The step with all axes (b, h, p, n) written out."""
    x, dt, A, B, C, D, z, bias = step
    dt = dt if bias is None else dt + bias
    dt = torch.log1p(torch.exp(dt)) if softplus else dt
    times = state.shape[1] // B.shape[1]
    B, C = B.repeat_interleave(times, 1), C.repeat_interleave(times, 1)
    state = state * torch.exp(dt[..., None] * A) + (dt * x)[..., None] * B[:, :, None]
    y = (state * C[:, :, None]).sum(-1)
    y = y if D is None else y + D * x
    return state, y if z is None else y * silu(z)


@given(st.data())
@settings(max_examples=25, deadline=None)
@pytest.mark.parametrize("function", [selective_state_update, selective_state_update_ref])
def test_one_step(function: Any, data: st.DataObject) -> None:
    b, g, p, n = (data.draw(st.integers(1, 3)) for _ in range(4))
    has_heads = data.draw(st.booleans())
    h = g * data.draw(st.integers(1, 2)) if has_heads else 1
    g = g if has_heads else 1
    torch.manual_seed(data.draw(st.integers(0, 999)))
    D, z, bias = (data.draw(st.booleans()) for _ in range(3))
    step = [torch.randn(b, h, p), torch.rand(b, h, p), -torch.rand(h, p, n)]
    step += [torch.randn(b, g, n), torch.randn(b, g, n), torch.randn(h, p) if D else None]
    step += [torch.randn(b, h, p) if z else None, torch.rand(h, p) if bias else None]
    step = [None if x is None else x.double() for x in step]
    state = torch.randn(b, h, p, n).double()
    softplus = data.draw(st.booleans())
    expected_state, expected = slow_step(state, tuple(step), softplus)

    if not has_heads:  # (b, d, n) and (b, d): the axis of one head is left out
        axes = (1, 1, 0, 1, 1, 0, 1, 0)
        step = [None if x is None else x.squeeze(i) for x, i in zip(step, axes, strict=True)]
        state, expected = state.squeeze(1), expected.squeeze(1)
        expected_state = expected_state.squeeze(1)
    step[0].requires_grad_()
    y = function(state, *step, dt_softplus=softplus)
    assert not y.requires_grad
    close(y, expected)
    close(state, expected_state)


def test_shared_over_the_channels_of_a_head() -> None:
    """As Mamba-2 calls it: expanded views, half precision beside a float32 state."""
    state, x = torch.randn(2, 4, 3, 5), torch.randn(2, 4, 3).bfloat16()
    dt = torch.rand(2, 4, 1).bfloat16().expand(-1, -1, 3)
    A, D = -torch.rand(4, 1, 1).expand(-1, 3, 5), torch.ones(4, 1).expand(-1, 3)
    B, C = torch.randn(2, 1, 5).bfloat16(), torch.randn(2, 1, 5).bfloat16()
    again = state.clone()
    y = selective_state_update(state, x, dt, A, B, C, D, dt_bias=D, dt_softplus=True)
    step = (x.float(), dt.float(), A, B.float(), C.float(), D, None, D)
    expected_state, expected = slow_step(again, step, True)
    assert y.dtype is torch.bfloat16
    close(y.float(), expected, 2e-2)
    close(state, expected_state, 1e-5)


def test_rows_of_a_larger_state() -> None:
    state = torch.randn(5, 2, 3)
    before = state.clone()
    step = (torch.randn(2, 2), torch.rand(2, 2), -torch.rand(2, 3), *torch.randn(2, 2, 3))
    y = selective_state_update(state, *step, state_batch_indices=torch.tensor([3, 1]))
    own = before[[3, 1]].clone()
    assert torch.equal(y, selective_state_update(own, *step))
    assert torch.equal(state[[3, 1]], own)
    assert torch.equal(state[[0, 2, 4]], before[[0, 2, 4]])
