"""The short causal depthwise convolution of Mamba: checks, choice of a backend, autograd."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import native
from .backends import Backend, choose_backend
from .checks import (
    check_tensors,
    compute_dtype,
    sequence_lengths,
    wrong_shape,
)
from .errors import ArgumentError
from .reference import causal_conv1d_reference
from .second_derivative import refuse_second_derivative

_NAME = "causal_conv1d"
MAX_WIDTH = 8


class _Inputs(NamedTuple):
    """The tensors of one call, in the order of the kernel's arguments."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    initial_state: Tensor | None


class _Options(NamedTuple):
    activation: str | None
    reverse: bool


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    *,
    initial_state: Tensor | None = None,
    return_final_state: bool = False,
    reverse: bool = False,
    cu_seqlens: Tensor | None = None,
    backend: Backend | str = Backend.AUTO,
) -> Tensor | tuple[Tensor, Tensor]:
    """Convolve every channel with its own k taps: y[t] = act(bias + sum_j weight[j] x[t-(k-1)+j]).

    `weight[:, k-1]` multiplies the present sample, `weight[:, 0]` the oldest, as in a `Conv1d`.
    Reversed, the same taps look ahead: y[t] = act(bias + sum_j weight[j] x[t+(k-1)-j]).

    Args:
        x: (b, l, d) input: float32, float64, bfloat16 or float16, any strides.
        weight: (d, k) taps, k from 1 to 8.
        bias: (d,); None means 0.
        activation: None or "silu".
        initial_state: (b, d, k-1) samples just outside x on the side the taps look to, in time
            order: those before step 0, or with `reverse` those after step l-1. None means zeros.
        return_final_state: also return what continues this call: pass it as `initial_state` with
            the steps that follow (with `reverse`: the steps that precede). (b, d, k-1) in time
            order: the last k-1 samples, or with `reverse` the first k-1.
        reverse: look ahead instead of back.
        cu_seqlens: int32 or int64 offsets [0, ..., l] of sequences packed along the steps; b must
            be 1. Taps never reach into another sequence; states are then (sequences, d, k-1).
        backend: "auto", or an implementation that must run; see `Backend`.

    Returns:
        y (b, l, d) in the type of x, and with `return_final_state` the state. Sums and states are
        float32, or float64 if x is float64.

    Raises:
        ShapeError, DTypeError, DeviceError, ArgumentError: an argument does not fit; the message
            names it.
        BackendError: a backend named explicitly cannot run; "auto" never raises this.

    Cost: O(b l d k) time, no memory besides the result.
    Source: Gu & Dao 2023, arXiv:2312.00752, Fig. 3 (the convolution of the Mamba block).
    """
    inputs = _Inputs(x, weight, bias, initial_state)
    check_tensors(_NAME, inputs, required=2)
    lengths = None if cu_seqlens is None else sequence_lengths(_NAME, cu_seqlens, x)
    _check_shapes(inputs, n_states=x.shape[0] if lengths is None else len(lengths))
    if activation is not None and activation != "silu":
        raise ArgumentError(f"{_NAME}: activation is {activation!r}, expected None or 'silu'")
    chosen = choose_backend(_NAME, backend, x.device)
    options = _Options(activation, bool(reverse))
    if lengths is None:
        y, final_state = _conv(chosen, inputs, options)
    else:
        y, final_state = _conv_packed(chosen, inputs, options, lengths)
    return (y, final_state) if return_final_state else y


def _check_shapes(inputs: _Inputs, n_states: int) -> None:
    x, weight, bias, initial_state = inputs
    if x.dim() != 3:
        raise wrong_shape(_NAME, "x", x, "3 axes (b, l, d)")
    b, _, d = x.shape
    if weight.dim() != 2 or weight.shape[0] != d or not 1 <= weight.shape[1] <= MAX_WIDTH:
        expected = f"(d, k) = ({d}, k) with k from 1 to {MAX_WIDTH}"
        raise wrong_shape(_NAME, "weight", weight, expected)
    k = weight.shape[1]
    if bias is not None and bias.shape != (d,):
        raise wrong_shape(_NAME, "bias", bias, f"(d,) = ({d},)")
    if initial_state is not None and initial_state.shape != (n_states, d, k - 1):
        first = "b" if n_states == b else "number of sequences"
        expected = f"({first}, d, k-1) = ({n_states}, {d}, {k - 1})"
        raise wrong_shape(_NAME, "initial_state", initial_state, expected)


def _conv(chosen: Backend, inputs: _Inputs, options: _Options) -> tuple[Tensor, Tensor]:
    if chosen is Backend.REFERENCE:
        result = causal_conv1d_reference(
            *inputs[:3],
            options.activation,
            initial_state=inputs.initial_state,
            return_final_state=True,
            reverse=options.reverse,
        )
        assert isinstance(result, tuple)
        return result

    x, weight, bias, initial_state = inputs
    real = compute_dtype(x)
    prepared = _Inputs(
        x,
        weight if weight.dtype is real else weight.to(real),
        bias if bias is None or bias.dtype is real else bias.to(real),
        initial_state
        if initial_state is None or initial_state.dtype is real
        else initial_state.to(real),
    )
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in prepared):
        y, final_state = _CausalConv1d.apply(options, *prepared)
        return y, final_state
    return _launch_forward(prepared, options)


def _conv_packed(
    chosen: Backend, inputs: _Inputs, options: _Options, lengths: list[int]
) -> tuple[Tensor, Tensor]:
    """Run the sequences one after another, so that nothing can leak from one into the next."""
    x, weight, bias, initial_state = inputs
    if not lengths:
        shape = (0, weight.shape[0], weight.shape[1] - 1)
        return torch.empty_like(x), x.new_empty(shape, dtype=compute_dtype(x))
    states = [None] * len(lengths) if initial_state is None else initial_state.split(1)
    results = [
        _conv(chosen, _Inputs(piece, weight, bias, state), options)
        for piece, state in zip(x.split(lengths, dim=1), states, strict=True)
    ]
    y, final_state = zip(*results, strict=True)
    return torch.cat(y, dim=1), torch.cat(final_state)


def _launch_forward(inputs: _Inputs, options: _Options) -> tuple[Tensor, Tensor]:
    """Run the native kernel; return y and the final state."""
    return native.causal_conv1d_forward(
        *inputs, silu=options.activation == "silu", reverse=options.reverse
    )


def _launch_backward(
    grad_y: Tensor | None, grad_final_state: Tensor | None, inputs: _Inputs, options: _Options
) -> tuple[Tensor | None, ...]:
    """Run the native kernel; return one gradient per entry of `inputs`."""
    return native.causal_conv1d_backward(
        torch.zeros_like(inputs.x) if grad_y is None else grad_y,
        grad_final_state,
        *inputs,
        silu=options.activation == "silu",
        reverse=options.reverse,
    )


class _CausalConv1d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, options: _Options, *tensors: Tensor | None) -> tuple[Tensor, Tensor]:
        inputs = _Inputs(*tensors)  # type: ignore[arg-type]
        ctx.options = options
        ctx.save_for_backward(*inputs)
        ctx.set_materialize_grads(False)
        return _launch_forward(inputs, options)

    @staticmethod
    def backward(
        ctx: Any, grad_y: Tensor | None, grad_final_state: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        inputs = _Inputs(*ctx.saved_tensors)
        gradients = _launch_backward(grad_y, grad_final_state, inputs, ctx.options)
        outer = (*inputs, grad_y, grad_final_state)
        return None, *refuse_second_derivative(_NAME, gradients, outer)
