"""The native causal convolution as a differentiable operator.

The two launch functions below are the only place that calls the kernel, whichever way a call takes
through PyTorch (see `library_autograd`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import native
from .checks import checked_offsets, compute_dtype, kernel_offsets
from .library import Arguments, Kernel, Results
from .library_autograd import Differentiable

NAME = "causal_conv1d"


class ConvInputs(NamedTuple):
    """The tensors of one call, in the order of the kernel's arguments."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    initial_state: Tensor | None


class ConvOptions(NamedTuple):
    silu: bool
    reverse: bool


def conv_native(
    inputs: ConvInputs, cu_seqlens: Tensor | None, options: ConvOptions
) -> tuple[Tensor, Tensor]:
    """Return y and the final state; record the call for autograd if a gradient is wanted."""
    x, weight, bias, initial_state = inputs
    real = compute_dtype(x)
    if weight.dtype is not real:
        weight = weight.to(real)
    if bias is not None and bias.dtype is not real:
        bias = bias.to(real)
    if initial_state is not None and initial_state.dtype is not real:
        initial_state = initial_state.to(real)
    y, final_state = _conv(x, weight, bias, initial_state, cu_seqlens, *options)
    return y, final_state


# The arguments of the operator: ConvInputs, cu_seqlens, ConvOptions.
_ARGUMENTS = (
    "Tensor x, Tensor weight, Tensor? bias, Tensor? initial_state, Tensor? cu_seqlens, "
    "bool silu, bool reverse"
)
_N_INPUTS = len(ConvInputs._fields)


def _launch_forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
    silu: bool,
    reverse: bool,
    save_for_backward: bool,
) -> Results:
    """Run the native kernel; return y and the final state. The gradient needs nothing else."""
    offsets = None if cu_seqlens is None else checked_offsets(NAME, cu_seqlens, x)
    return native.causal_conv1d_forward(
        x, weight, bias, initial_state, silu=silu, reverse=reverse, offsets=offsets
    )


def _launch_backward(*arguments: Any) -> Results:
    """Run the native kernel; return one gradient per entry of `ConvInputs`."""
    *others, cu_seqlens, silu, reverse = arguments
    offsets = None if cu_seqlens is None else kernel_offsets(cu_seqlens, others[0])
    return native.causal_conv1d_backward(*others, silu=silu, reverse=reverse, offsets=offsets)


def _fake_forward(*arguments: Any) -> Results:
    x, weight, _, _, cu_seqlens, *_ = arguments
    n_states = x.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1
    d, k = weight.shape
    return x.new_empty(x.shape), weight.new_empty((n_states, d, k - 1))


def _fake_backward(grad_y: Tensor, grad_final_state: Tensor | None, *arguments: Any) -> Results:
    inputs = arguments[:_N_INPUTS]
    return tuple(None if x is None else x.new_empty(x.shape) for x in inputs)


def _backward_arguments(
    saved: Arguments, options: Arguments, grads: Arguments, wanted: Arguments
) -> Arguments:
    grad_y, grad_final_state = grads
    if grad_y is None:  # only the final state was used
        grad_y = torch.zeros_like(saved[0])
    return (grad_y, grad_final_state, *saved, *options)


def _folds(*arguments: Any) -> tuple[bool, ...] | None:
    """Which arguments of the forward pass have the batch first: for vmap."""
    if arguments[_N_INPUTS] is not None:  # packed sequences have no batch
        return None
    return (True, False, False, True, *[False] * (len(arguments) - _N_INPUTS))


_conv = Differentiable(
    NAME,
    Kernel(
        "causal_conv1d_forward",
        f"({_ARGUMENTS}, bool save_for_backward) -> (Tensor, Tensor)",
        _launch_forward,
        _fake_forward,
        _folds,
    ),
    Kernel(
        "causal_conv1d_backward",
        f"(Tensor grad_y, Tensor? grad_final_state, {_ARGUMENTS}) "
        "-> (Tensor, Tensor, Tensor, Tensor)",
        _launch_backward,
        _fake_backward,
    ),
    n_results=2,
    save=lambda arguments, results: arguments[: _N_INPUTS + 1],
    backward_arguments=_backward_arguments,
)
