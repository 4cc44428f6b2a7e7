"""The causal depthwise convolution as a sum of shifted products."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..checks import compute_dtype


def causal_conv1d_reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    *,
    initial_state: Tensor | None = None,
    return_final_state: bool = False,
    reverse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Depthwise convolution along the steps that sees the present and the k - 1 samples before it.

    Arguments, result and errors: see `ssm_kernels.causal_conv1d`.

    Cost: O(b l d k) time, O(b l d) memory.
    """
    real = compute_dtype(x)
    b, l, d = x.shape
    k = weight.shape[1]
    weight = weight.to(real)

    if initial_state is None:
        outside = x.new_zeros(b, k - 1, d, dtype=real)
    else:
        outside = initial_state.to(real).transpose(1, 2)
    parts = [x.to(real), outside] if reverse else [outside, x.to(real)]
    padded = torch.cat(parts, dim=1)  # (b, l + k - 1, d) in time order

    y = torch.zeros_like(padded[:, :l])
    for tap in range(k):  # weight[:, k - 1] meets the present sample
        first = k - 1 - tap if reverse else tap
        y = y + padded[:, first : first + l] * weight[:, tap]
    if bias is not None:
        y = y + bias.to(real)
    if activation == "silu":
        y = F.silu(y)
    y = y.to(x.dtype)

    final = padded[:, : k - 1] if reverse else padded[:, l:]
    return (y, final.transpose(1, 2).contiguous()) if return_final_state else y
