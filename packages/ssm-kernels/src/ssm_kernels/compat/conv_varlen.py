"""causal_conv1d.causal_conv1d_varlen: convolution states of packed sequences."""

from __future__ import annotations

import torch
from torch import Tensor


def causal_conv1d_varlen_states(x: Tensor, cu_seqlens: Tensor, state_len: int) -> Tensor:
    """Return the last `state_len` samples of each packed sequence, after zeros if it is shorter.

    Args:
        x: (l, d) the sequences, end to end.
        cu_seqlens: (b + 1,) offsets of the sequences.
        state_len: samples to return.

    Returns:
        (b, d, state_len), oldest first.

    Cost: O(d (l + b state_len)).
    """
    starts, ends = cu_seqlens[:-1, None].long(), cu_seqlens[1:, None].long()
    steps = ends - state_len + torch.arange(state_len, device=x.device)
    before = x.new_zeros((1, x.shape[1]))  # step -1: what lies before a sequence
    rows = torch.where(steps >= starts, steps, -1) + 1
    return torch.cat([before, x])[rows].transpose(1, 2)


def causal_conv1d_varlen_states_ref(x: Tensor, cu_seqlens: Tensor, state_len: int) -> Tensor:
    """Compute what `causal_conv1d_varlen_states` does; there is one implementation."""
    return causal_conv1d_varlen_states(x, cu_seqlens, state_len)
