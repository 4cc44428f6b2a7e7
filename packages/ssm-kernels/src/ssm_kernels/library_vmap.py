"""vmap of a kernel: fold the mapped axis into the batch, or call the kernel for every entry.

Folding is one call, but parameters that all sequences share cannot be folded; where one of them is
mapped, or has a gradient to return per entry, the kernel runs once per entry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from .errors import ArgumentError

Folds: TypeAlias = "Callable[..., tuple[bool, ...] | None]"
"""Takes the arguments of one entry and tells for each whether its first axis is the batch; None if
the call cannot be folded. All results of a kernel with this must have the batch as first axis, or
as the outermost part of it."""


def vmap_rule(
    call: Callable[..., Any], folds: Folds | None, written: Mapping[int, str] | None = None
) -> Callable[..., Any]:
    """Return the rule for `torch.library.register_vmap` or the `vmap` of an autograd function.

    `written` names the arguments that `call` writes into, by position; such a call is not folded.
    """

    def rule(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> Any:
        size: int = info.batch_size
        mapped = [dim is not None for dim in in_dims]
        for position, name in (written or {}).items():
            if not mapped[position]:
                raise ArgumentError(
                    f"vmap: {name} is updated in place and not mapped, expected one per entry; "
                    f"map over {name}, too"
                )
        arguments = tuple(
            x if dim is None else x.movedim(dim, 0)
            for x, dim in zip(arguments, in_dims, strict=True)
        )
        flags = None
        if folds is not None and size > 0 and not written:
            flags = folds(*_entry(arguments, mapped, size, 0))
        if flags is None or any(m and not flag for m, flag in zip(mapped, flags, strict=True)):
            outputs = _loop(call, arguments, mapped, size)
            return outputs, 0 if isinstance(outputs, Tensor) else (0,) * len(outputs)
        folded = (
            _fold(x, m, size) if flag else x
            for x, m, flag in zip(arguments, mapped, flags, strict=True)
        )
        return _unfold(call(*folded), size)

    return rule


def _entry(arguments: Sequence[Any], mapped: Sequence[bool], size: int, i: int) -> list[Any]:
    """Return the arguments of one entry; of no entries at all, the first is zeros."""
    return [
        (x[i] if size else x.new_zeros(x.shape[1:])) if m else x
        for x, m in zip(arguments, mapped, strict=True)
    ]


def _loop(
    call: Callable[..., Any], arguments: Sequence[Any], mapped: Sequence[bool], size: int
) -> Tensor | tuple[Tensor, ...]:
    results = [call(*_entry(arguments, mapped, size, i)) for i in range(max(size, 1))]
    if isinstance(results[0], Tensor):
        return torch.stack(results)[:size]
    return tuple(torch.stack(column)[:size] for column in zip(*results, strict=True))


def _fold(x: Tensor | None, is_mapped: bool, size: int) -> Tensor | None:
    """(size, b, ...) as (size b, ...); what is not mapped is the same for every entry."""
    if x is None:
        return None
    return (x if is_mapped else x.expand(size, *x.shape)).flatten(0, 1)


def _unfold(outputs: Any, size: int) -> tuple[Any, Any]:
    if isinstance(outputs, Tensor):
        return outputs.unflatten(0, (size, outputs.shape[0] // size)), 0
    absent = [x.dim() == 1 and x.shape[0] == 0 for x in outputs]  # a placeholder stays as it is
    unfolded = tuple(
        x if skip else x.unflatten(0, (size, x.shape[0] // size))
        for x, skip in zip(outputs, absent, strict=True)
    )
    return unfolded, tuple(None if skip else 0 for skip in absent)
