"""causal_conv1d.causal_conv1d_interface: the convolution of new samples, its state in place."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .. import causal_conv1d_update as operator
from ..backends import Backend
from .conv_interface import known_activation


class _Options(NamedTuple):
    activation: str | None
    cache_seqlens: Tensor | None
    backend: Backend


def causal_conv1d_update(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    cache_seqlens: Tensor | None = None,
    conv_state_indices: Tensor | None = None,
) -> Tensor:
    """Convolve new samples with those kept in `conv_state`, and put them into it, in place.

    As in the original, no gradient is recorded.

    Args:
        x: (b, d) one new sample, or (b, d, l) several.
        conv_state: (b, d, s) with s >= k - 1, overwritten: the last s samples, oldest first.
        weight: (d, k) taps, k from 1 to 8.
        bias: (d,) or None.
        activation: None, "silu" or "swish".
        cache_seqlens: (b,) integers, how many samples came before; conv_state is then a ring, in
            which sample t lies in slot t mod s.
        conv_state_indices: (b,) integers, which rows of conv_state (any number of them) belong to
            the batch; a negative one leaves out its entry, whose result is 0.

    Returns:
        y, in shape and type of x.

    Raises:
        NotImplementedError: another activation.
        ShapeError, DTypeError, DeviceError: from `ssm_kernels.causal_conv1d_update`, whose axes are
            (b, l, d).

    Cost: O(b l d k + b d s).
    """
    options = _Options(known_activation(activation), cache_seqlens, Backend.AUTO)
    if conv_state_indices is None:
        return _update(x, conv_state, weight, bias, options)
    chosen = conv_state_indices >= 0
    rows = conv_state_indices.clamp(min=0).long()
    with torch.no_grad():
        states = conv_state[rows]
        y = _update(x, states, weight, bias, options)
        conv_state[rows[chosen]] = states[chosen]
    return y * chosen.view(-1, *[1] * (y.dim() - 1))


def causal_conv1d_update_ref(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    cache_seqlens: Tensor | None = None,
) -> Tensor:
    """Compute what `causal_conv1d_update` does in plain PyTorch."""
    options = _Options(known_activation(activation), cache_seqlens, Backend.REFERENCE)
    return _update(x, conv_state, weight, bias, options)


def _update(
    x: Tensor, conv_state: Tensor, weight: Tensor, bias: Tensor | None, options: _Options
) -> Tensor:
    steps = x.transpose(1, 2) if x.dim() == 3 else x
    with torch.no_grad():
        y = operator(
            *(steps, conv_state, weight, bias, options.activation),
            cache_seqlens=options.cache_seqlens,
            backend=options.backend,
        )
    return y.transpose(1, 2) if x.dim() == 3 else y
