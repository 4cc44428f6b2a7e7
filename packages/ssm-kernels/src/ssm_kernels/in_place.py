"""What operators that write into a state of the caller share: checks of their arguments."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .errors import ArgumentError

_increment_version = torch.autograd.graph.increment_version


def refuse_gradients(operator: str, arguments: Any, instead: str) -> None:
    """Raise if a derivative of a named tuple's tensors would have to be recorded.

    Raises:
        ArgumentError: grad mode is on and a tensor requires grad, or one carries a forward-mode
            tangent; the message says what to use `instead`.
    """
    forward_mode = forward_ad._current_level >= 0
    if not forward_mode and not torch.is_grad_enabled():
        return
    for name, tensor in zip(arguments._fields, arguments, strict=True):
        if tensor is None:
            continue
        if torch.is_grad_enabled() and tensor.requires_grad:
            raise ArgumentError(
                f"{operator}: {name} requires grad, but a state updated in place has no gradient; "
                f"call it under torch.no_grad(), or for training use {instead}"
            )
        if forward_mode and forward_ad.unpack_dual(tensor).tangent is not None:
            raise ArgumentError(
                f"{operator}: {name} carries a forward-mode tangent, but a state updated in place "
                f"has none; use {instead} with backend='reference'"
            )


def check_writable(operator: str, name: str, state: Tensor) -> None:
    """Raise if two entries of the state share memory.

    Raises:
        ArgumentError: an axis of the state is expanded.
    """
    if state.is_contiguous():
        return
    if any(s == 0 and n > 1 for s, n in zip(state.stride(), state.shape, strict=True)):
        raise ArgumentError(
            f"{operator}: {name} is expanded (strides {state.stride()}), expected one place in "
            "memory per entry, as it is updated in place; call .contiguous() on it first"
        )


def mark_changed(state: Tensor) -> None:
    """Tell autograd that the state was written to, as an in-place operation of PyTorch does."""
    if not state.is_inference():
        _increment_version(state)
