"""Packed sequences, one after another: nothing can leak from one into the next.

Every argument and result of a call over the whole is one of the kinds below; a kernel runs once per
sequence on its share of each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

import torch
from torch import Tensor

from .checks import checked_lengths

CHUNK_STEPS = 32  # from one checkpoint of the selective scan to the next


def chunks(steps: int) -> int:
    """Return the number of checkpoints of a selective scan of that many steps."""
    return (steps + CHUNK_STEPS - 1) // CHUNK_STEPS


class Share(Enum):
    """What of a tensor belongs to one sequence."""

    STEPS = "its steps, on axis 1"
    CHUNKS = "its checkpoints, on axis 1"
    STATE = "its entry on axis 0"
    ALL = "everything; as a result, the sum over the sequences"


def run_packed(
    operator: str,
    call: Callable[..., Sequence[Tensor | None]],
    cu_seqlens: Tensor,
    arguments: Sequence[tuple[Any, Share]],
    results: Sequence[Share],
) -> tuple[Tensor | None, ...]:
    """Run `call` on each sequence's share of the arguments and join the results.

    Raises:
        ArgumentError: the offsets do not start at 0, end at the number of steps, or decrease.
    """
    steps = next(x.shape[1] for x, share in arguments if share is Share.STEPS)
    lengths = checked_lengths(operator, cu_seqlens, steps)
    nothing = not lengths
    if nothing:  # one empty sequence, taken away again from the result
        lengths = [0]
        arguments = [
            (x if x is None or share is not Share.STATE else x.new_zeros(1, *x.shape[1:]), share)
            for x, share in arguments
        ]
    columns = [_split(x, share, lengths) for x, share in arguments]
    outputs = [call(*row) for row in zip(*columns, strict=True)]
    joined = zip(zip(*outputs, strict=True), results, strict=True)
    return tuple(_join(column, share, nothing) for column, share in joined)


def _split(x: Any, share: Share, lengths: list[int]) -> Sequence[Any]:
    if x is None or share is Share.ALL:
        return [x] * len(lengths)
    if share is Share.STATE:
        return list(x.split(1))
    sizes = lengths if share is Share.STEPS else [chunks(length) for length in lengths]
    return list(x[:, : sum(sizes)].split(sizes, dim=1))


def _join(column: Sequence[Tensor | None], share: Share, nothing: bool) -> Tensor | None:
    pieces = [x for x in column if x is not None]
    if not pieces:
        return None
    if share is Share.ALL:
        total = pieces[0]
        for piece in pieces[1:]:
            total = total + piece
        return total
    if share is Share.STATE:
        return torch.cat(pieces)[: 0 if nothing else None]
    return torch.cat(pieces, dim=1)
