"""The compiled causal convolution of new samples: checked tensors in, y out, the state in place."""

from __future__ import annotations

import torch
from torch import Tensor

from . import native_extension as extension
from .native_extension import DTYPE_CODES, address, contiguous, resolved, view


def causal_conv1d_update(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    silu: bool,
    cache_seqlens: Tensor | None,
) -> Tensor:
    """The causal convolution of new samples; returns y.

    x: (b, d) or (b, l, d), conv_state: (b, d, s): any strides and float types. weight: (d, k), k
    from 1 to 8. bias: (d,). cache_seqlens: (b,), int32 or int64.
    """
    double = torch.float64
    if (x.dtype is double) != (conv_state.dtype is double) or conv_state.is_neg():
        return _converted(x, conv_state, weight, bias, silu=silu, cache_seqlens=cache_seqlens)
    real = double if x.dtype is double else torch.float32
    # These live until the kernel has run: it is given their addresses only.
    x, weight = resolved(x), contiguous(weight if weight.dtype is real else weight.to(real))
    bias = contiguous(bias if bias is None or bias.dtype is real else bias.to(real))
    counts = None if cache_seqlens is None else cache_seqlens.contiguous()
    y = torch.empty_like(x)
    batch, channels = x.shape[0], x.shape[-1]
    steps = x.shape[1] if x.dim() == 3 else 1
    stride_b, stride_d, stride_s = conv_state.stride()
    state = (
        conv_state.data_ptr(),
        stride_b,
        stride_s,
        stride_d,
        DTYPE_CODES[conv_state.dtype],
    )
    kernels = extension.module_for(x)
    kernels.causal_conv1d_update(
        (batch, steps, channels, weight.shape[1], conv_state.shape[2]),
        (_steps(x), _steps(y), state),
        (weight.data_ptr(), address(bias), address(counts)),
        counts is not None and counts.dtype is torch.int64,
        silu,
        torch.get_num_threads(),
        extension.cuda_call(kernels, x),
    )
    return y


def _steps(t: Tensor) -> tuple[int, int, int, int, int]:
    """Address, strides and dtype code of (b, l, d), or of (b, d) as one step."""
    if t.dim() == 3:
        return view(t)
    stride_b, stride_d = t.stride()
    return (t.data_ptr(), stride_b, 0, stride_d, DTYPE_CODES[t.dtype])


def _converted(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    silu: bool,
    cache_seqlens: Tensor | None,
) -> Tensor:
    """For what the kernel does not read: a double beside another type, a lazily negated state."""
    double = torch.float64
    real = double if double in (x.dtype, conv_state.dtype) else conv_state.dtype
    work = conv_state.to(real).resolve_neg()
    activation = x.to(double) if real is double else x
    y = causal_conv1d_update(activation, work, weight, bias, silu=silu, cache_seqlens=cache_seqlens)
    conv_state.copy_(work)
    return y.to(x.dtype)
