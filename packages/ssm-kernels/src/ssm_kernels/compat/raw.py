"""Backward passes as calls of their own: the forward pass again, then autograd."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def leaves_of(tensors: Mapping[str, Tensor | None]) -> dict[str, Tensor | None]:
    """Return the same tensors as leaves that want a gradient; None stays."""
    return {
        name: None if value is None else value.detach().requires_grad_()
        for name, value in tensors.items()
    }


def gradients(
    outputs: Sequence[Tensor], seeds: Sequence[Tensor], leaves: Mapping[str, Tensor | None]
) -> dict[str, Tensor | None]:
    """Return the gradient of each leaf (zeros if nothing depends on it), contiguous."""
    given = {name: leaf for name, leaf in leaves.items() if leaf is not None}
    found = torch.autograd.grad(outputs, list(given.values()), seeds, materialize_grads=True)
    by_name = dict(zip(given, found, strict=True))
    return {name: by_name[name].contiguous() if name in given else None for name in leaves}


def stored(gradient: Tensor | None, place: Tensor | None) -> Tensor | None:
    """Return the gradient, written to `place` if the caller gave one."""
    return gradient if gradient is None or place is None else place.copy_(gradient)
