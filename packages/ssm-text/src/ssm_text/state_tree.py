"""A model's state as a list of tensors and back: NamedTuples and tuples, nested as they like."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import Tensor

from ssm_text.causal_lm import State


def leaves(state: State) -> list[Tensor]:
    """The tensors of a state, in order."""
    if isinstance(state, Tensor):
        return [state]
    return [leaf for part in state for leaf in leaves(part)]


def rebuilt(state: State, tensors: Iterable[Tensor]) -> State:
    """A state nested like `state`, with other tensors, as many as it has leaves."""
    return _take(state, iter(tensors))


def _take(state: State, tensors: Iterator[Tensor]) -> State:
    if isinstance(state, Tensor):
        return next(tensors)
    parts = [_take(part, tensors) for part in state]
    return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)
