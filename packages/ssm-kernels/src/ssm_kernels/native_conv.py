"""The compiled causal convolution: checked tensors in, tensors out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import native_extension as extension
from .native_extension import DTYPE_CODES, address, contiguous, resolved, view


def _conv_inputs(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    offsets: Tensor | None,
    *,
    silu: bool,
    reverse: bool,
) -> Any:
    """The C++ description of one convolution; the tensors must outlive it, all but x contiguous."""
    inputs = extension.module_for(x).ConvInputs()
    batch, steps, channels = x.shape
    inputs.set_sizes((batch, steps, channels, weight.shape[1], DTYPE_CODES[x.dtype]))
    inputs.set_tensors(view(x), weight.data_ptr(), address(bias), address(initial_state))
    if offsets is not None:
        inputs.set_packing(offsets.data_ptr(), offsets.shape[0] - 1)
    inputs.set_mode(silu, reverse, torch.get_num_threads())
    return inputs


def causal_conv1d_forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    *,
    silu: bool,
    reverse: bool,
    offsets: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The causal convolution: (y, final state).

    x: (b, l, d), any strides. weight: (d, k), k from 1 to 8. bias: (d,). States: (b, d, k-1) in
    time order. All but x have the compute type: float64 for a float64 x, otherwise float32.
    offsets: int64, contiguous, where packed sequences begin, and the end; states then have one row
    per sequence.
    """
    x, weight, bias = resolved(x), contiguous(weight), contiguous(bias)
    initial_state = contiguous(initial_state)
    inputs = _conv_inputs(x, weight, bias, initial_state, offsets, silu=silu, reverse=reverse)
    kernels = extension.module_for(x)
    extension.place(inputs, kernels, x)
    y = x.new_empty(x.shape)
    sequences = x.shape[0] if offsets is None else offsets.shape[0] - 1
    final_state = weight.new_empty((sequences, x.shape[2], weight.shape[1] - 1))
    kernels.causal_conv1d_forward(inputs, view(y), final_state.data_ptr())
    return y, final_state


def causal_conv1d_backward(
    grad_y: Tensor,
    grad_final_state: Tensor | None,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    *,
    silu: bool,
    reverse: bool,
    offsets: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Gradients of (x, weight, bias, initial_state), None for what is absent.

    Arguments as in causal_conv1d_forward; grad_y: (b, l, d) of x's dtype, any strides.
    Gradients are contiguous. The result is bit-equal for any number of threads.
    """
    x, weight, bias = resolved(x), contiguous(weight), contiguous(bias)
    initial_state = contiguous(initial_state)
    inputs = _conv_inputs(x, weight, bias, initial_state, offsets, silu=silu, reverse=reverse)
    kernels = extension.module_for(x)
    extension.place(inputs, kernels, x)
    grad_y, grad_final_state = resolved(grad_y), contiguous(grad_final_state)
    grad_x, grad_weight = x.new_empty(x.shape), weight.new_empty(weight.shape)
    grad_bias = None if bias is None else bias.new_empty(bias.shape)
    grad_initial = None if initial_state is None else initial_state.new_empty(initial_state.shape)
    kernels.causal_conv1d_backward(
        inputs,
        view(grad_y),
        address(grad_final_state),
        view(grad_x),
        (grad_weight.data_ptr(), address(grad_bias), address(grad_initial)),
    )
    return grad_x, grad_weight, grad_bias, grad_initial
