"""The native causal convolution as a differentiable operator.

The two launch functions below are the only place that calls the kernel, whichever way a call takes
through PyTorch (see `library_autograd`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import native
from .checks import compute_dtype
from .library import Kernel
from .library_autograd import Differentiable
from .packed import Share, run_packed

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


SHARES = ConvInputs(Share.STEPS, Share.ALL, Share.ALL, Share.STATE)  # type: ignore[arg-type]


def conv_native(
    inputs: ConvInputs, cu_seqlens: Tensor | None, options: ConvOptions
) -> tuple[Tensor, Tensor]:
    """Return y and the final state; record the call for autograd if a gradient is wanted."""
    x, weight, bias, initial_state = inputs
    real = compute_dtype(x)
    y, final_state = _conv(
        x,
        _cast(weight, real),
        None if bias is None else _cast(bias, real),
        None if initial_state is None else _cast(initial_state, real),
        cu_seqlens,
        *options,
    )
    return y, final_state


def _cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x if x.dtype is dtype else x.to(dtype)  # .to() costs a microsecond even when idle


# The arguments of the operator: ConvInputs, cu_seqlens, ConvOptions.
_ARGUMENTS = (
    "Tensor x, Tensor weight, Tensor? bias, Tensor? initial_state, Tensor? cu_seqlens, "
    "bool silu, bool reverse"
)


def _launch_forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
    silu: bool,
    reverse: bool,
    save_for_backward: bool,
) -> tuple[Tensor | None, ...]:
    """Run the native kernel; return y and the final state. The gradient needs nothing else."""

    def launch(*inputs: Any) -> tuple[Tensor, Tensor]:
        return native.causal_conv1d_forward(*inputs, silu=silu, reverse=reverse)

    inputs = ConvInputs(x, weight, bias, initial_state)
    if cu_seqlens is None:
        return launch(*inputs)
    arguments = list(zip(inputs, SHARES, strict=True))
    return run_packed(NAME, launch, cu_seqlens, arguments, (Share.STEPS, Share.STATE))


def _launch_backward(
    grad_y: Tensor,
    grad_final_state: Tensor | None,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
    silu: bool,
    reverse: bool,
) -> tuple[Tensor | None, ...]:
    """Run the native kernel; return one gradient per entry of `ConvInputs`."""

    def launch(*arguments: Any) -> tuple[Tensor | None, ...]:
        return native.causal_conv1d_backward(*arguments, silu=silu, reverse=reverse)

    inputs = ConvInputs(x, weight, bias, initial_state)
    if cu_seqlens is None:
        return launch(grad_y, grad_final_state, *inputs)
    grads = [(grad_y, Share.STEPS), (grad_final_state, Share.STATE)]
    arguments = [*grads, *zip(inputs, SHARES, strict=True)]
    return run_packed(NAME, launch, cu_seqlens, arguments, SHARES)


def _fake_forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
    *_: bool,
) -> tuple[Tensor | None, ...]:
    b, _, d = x.shape
    n_states = b if cu_seqlens is None else cu_seqlens.shape[0] - 1
    return x.new_empty(x.shape), weight.new_empty((n_states, d, weight.shape[1] - 1))


def _fake_backward(
    grad_y: Tensor, grad_final_state: Tensor | None, *arguments: Any
) -> tuple[Tensor | None, ...]:
    inputs = arguments[: len(ConvInputs._fields)]
    return tuple(None if t is None else t.new_empty(t.shape) for t in inputs)


def _folds(*arguments: Any) -> tuple[bool, ...] | None:
    x, weight, bias, initial_state, cu_seqlens, *others = arguments
    if cu_seqlens is not None:
        return None
    return (True, False, False, True, False, *[False] * len(others))


def _backward_arguments(
    saved: tuple[Any, ...],
    options: tuple[Any, ...],
    grads: tuple[Any, ...],
    wanted: tuple[Any, ...],
) -> tuple[Any, ...]:
    grad_y, grad_final_state = grads
    if grad_y is None:  # only the final state was used
        grad_y = torch.zeros_like(saved[0])
    return (grad_y, grad_final_state, *saved, *options)


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
    save=lambda arguments, results: arguments[: len(ConvInputs._fields) + 1],
    backward_arguments=_backward_arguments,
)
