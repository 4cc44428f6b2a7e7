"""The tensors of an official checkpoint: from a state dict, a tree, or numpy arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ssm_core.errors import CheckpointError

StateDict: TypeAlias = Mapping[str, Any]
"""Names to tensors or arrays, or to further mappings of them (the trees of JAX)."""
Tensors: TypeAlias = dict[str, Tensor]

#: how many names an error lists before it only counts
MOST_NAMES = 10


def collect(owner: str, state_dict: StateDict, prefix: str, separator: str) -> Tensors:
    """Return the tensors whose name begins with `prefix`, without it.

    Nested mappings are laid flat, the levels joined by `separator`. Tensors are not copied.

    Raises:
        CheckpointError: a value is no tensor or array, or no name begins with `prefix`.
    """
    if not isinstance(state_dict, Mapping):
        raise CheckpointError(
            f"{owner}: the state dict is a {type(state_dict).__name__}, "
            "expected a mapping of names to tensors"
        )
    named = {name: _tensor(owner, name, value) for name, value in _flat(state_dict, separator)}
    chosen = {k.removeprefix(prefix): v for k, v in named.items() if k.startswith(prefix)}
    if prefix and not chosen:
        raise CheckpointError(
            f"{owner}: no name begins with the prefix {prefix!r}; the first names are "
            f"{listed(named, 3)}"
        )
    return chosen


def listed(names: Iterable[str], most: int = MOST_NAMES) -> str:
    """The first names, and how many there are if these are not all."""
    names = list(names)
    rest = f", .. ({len(names)} in all)" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def mismatches(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> tuple[str, str]:
    """What keeps `given` tensors out of a model that has `own` ones, in words; "" is nothing.

    Returns:
        the names that are missing, and those that are left over or of another shape.
    """
    missing = [name for name in own if name not in given]
    unexpected = [name for name in given if name not in own]
    misshapen = [
        f"{name} has shape {tuple(given[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in given and given[name].shape != tensor.shape
    ]
    wrong = [f"unexpected {listed(unexpected)}"] if unexpected else []
    wrong += [listed(misshapen)] if misshapen else []
    return f"missing {listed(missing)}" if missing else "", "; ".join(wrong)


def _flat(tree: StateDict, separator: str) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            for inner, leaf in _flat(value, separator):
                yield f"{name}{separator}{inner}", leaf
        else:
            yield str(name), value


def _tensor(owner: str, name: str, value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach()
    if hasattr(value, "__array__"):  # numpy and JAX
        import numpy

        try:
            # a copy in C order: torch takes neither read-only nor negatively strided arrays
            return torch.from_numpy(numpy.array(value, order="C"))
        except TypeError as error:
            raise CheckpointError(f"{owner}: {name} cannot become a tensor: {error}") from error
    raise CheckpointError(
        f"{owner}: {name} is a {type(value).__name__}, expected a tensor or an array"
    )
