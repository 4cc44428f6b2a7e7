"""causal_conv1d.cpp_functions: forward, backward and update of the convolution, one call each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..backends import Backend
from .conv_interface import convolve
from .conv_update import causal_conv1d_update


def causal_conv1d_fwd_function(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    seq_idx: Tensor | None,
    initial_states: Tensor | None,
    final_states_out: Tensor | None,
    silu_activation: bool,
) -> Tensor:
    """Return y (b, d, l) without gradient; arguments as in `causal_conv1d_fn`.

    `final_states_out` (b, d, k-1), if given, is overwritten with the last samples.
    """
    with torch.no_grad():
        y, final_states = convolve(
            *(x, weight, bias, seq_idx, initial_states, _activation(silu_activation), Backend.AUTO)
        )
        if final_states_out is not None:
            final_states_out.copy_(final_states)
    return y


def causal_conv1d_bwd_function(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    dout: Tensor,
    seq_idx: Tensor | None,
    initial_states: Tensor | None,
    dfinal_states: Tensor | None,
    dx: Tensor | None,
    return_dinitial_states: bool,
    silu_activation: bool,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Return the gradients of x, weight, bias and, if asked for, initial_states.

    `dout` (b, d, l) is the gradient of y, `dfinal_states` that of the final states or None; `dx`,
    if given, is written to and returned. Runs the forward pass again.
    """
    leaves: list[Any] = [
        None if tensor is None else tensor.detach().requires_grad_()
        for tensor in (x, weight, bias, initial_states)
    ]
    given_again = [*leaves[:3], seq_idx, leaves[3], _activation(silu_activation), Backend.AUTO]
    with torch.enable_grad():
        y, final_states = convolve(*given_again)
    given = [leaf for leaf in leaves if leaf is not None]
    results, cotangents = [y], [dout.to(y.dtype)]
    if dfinal_states is not None:
        results.append(final_states)
        cotangents.append(dfinal_states.to(final_states.dtype))
    gradients = iter(torch.autograd.grad(results, given, cotangents))
    own_dx, dweight, dbias, dinitial = (
        None if leaf is None else next(gradients) for leaf in leaves
    )
    assert own_dx is not None
    assert dweight is not None
    dx = own_dx if dx is None else dx.copy_(own_dx)
    return dx, dweight, dbias, dinitial if return_dinitial_states else None


def causal_conv1d_update_function(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    silu_activation: bool,
    cache_seqlens: Tensor | None,
    conv_state_indices: Tensor | None,
) -> Tensor:
    """Compute `causal_conv1d_update`; arguments as there, the activation as a flag."""
    activation = _activation(silu_activation)
    return causal_conv1d_update(
        x, conv_state, weight, bias, activation, cache_seqlens, conv_state_indices
    )


def _activation(silu: bool) -> str | None:
    return "silu" if silu else None
