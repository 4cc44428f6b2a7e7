"""The causal depthwise convolution of new samples only, which then go into the state."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..checks import compute_dtype


def causal_conv1d_update_reference(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    *,
    cache_seqlens: Tensor | None = None,
) -> Tensor:
    """Convolve the new samples x with those in `conv_state` before them; update it in place.

    Arguments, result and errors: see `ssm_kernels.causal_conv1d_update`.

    Cost: O(b l d k + b d s) time and memory.
    """
    if x.dim() == 2:
        return causal_conv1d_update_reference(
            x.unsqueeze(1), conv_state, weight, bias, activation, cache_seqlens=cache_seqlens
        ).squeeze(1)
    real = compute_dtype(x, conv_state)
    b, l, d = x.shape
    k, s = weight.shape[1], conv_state.shape[2]
    weight = weight.to(real)
    new = x.to(real).transpose(1, 2)  # (b, d, l), like the state

    if cache_seqlens is None:
        past = conv_state.to(real)
    else:  # sample number t lies in slot t mod s
        times = cache_seqlens.long().unsqueeze(1) + torch.arange(1 - k, l, device=x.device)
        slots = (times.remainder(s) if s > 0 else times.new_zeros(times.shape)).unsqueeze(1)
        past = conv_state.to(real).gather(2, slots[:, :, : k - 1].expand(b, d, k - 1))

    seen = torch.cat([past[:, :, past.shape[2] - (k - 1) :], new], dim=2)  # (b, d, k - 1 + l)
    y = torch.zeros_like(new)
    for tap in range(k):  # weight[:, k - 1] meets the present sample
        y = y + seen[:, :, tap : tap + l] * weight[:, tap].unsqueeze(1)
    if bias is not None:
        y = y + bias.to(real).unsqueeze(1)
    if activation == "silu":
        y = F.silu(y)

    if cache_seqlens is None:
        conv_state.copy_(torch.cat([past, new], dim=2)[:, :, l:])
    else:
        kept = min(l, s)
        written = slots[:, :, k - 1 + l - kept :].expand(b, d, kept)
        conv_state.scatter_(2, written, new[:, :, l - kept :].to(conv_state.dtype))
    return y.transpose(1, 2).contiguous().to(x.dtype)
