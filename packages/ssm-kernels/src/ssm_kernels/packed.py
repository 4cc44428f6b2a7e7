"""Packed sequences in a reference, one after another: nothing can leak from one into the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum

import torch
from torch import Tensor

from .checks import checked_lengths


class Share(Enum):
    """What of an argument belongs to one sequence."""

    STEPS = "its steps, on axis 1"
    STATE = "its entry on axis 0"
    ALL = "everything"


def run_packed(
    operator: str,
    call: Callable[..., tuple[Tensor, Tensor]],
    cu_seqlens: Tensor,
    arguments: Sequence[Tensor | None],
    shares: Sequence[Share],
) -> tuple[Tensor, Tensor]:
    """Run `call` on each sequence's share of the arguments; join the (y, final state) it returns.

    The first argument has the steps on axis 1.

    Raises:
        ArgumentError: the offsets do not start at 0, end at the number of steps, or decrease.
    """
    steps = arguments[0]
    assert steps is not None
    lengths = checked_lengths(operator, cu_seqlens, steps.shape[1])
    columns = [_split(x, share, lengths) for x, share in zip(arguments, shares, strict=True)]
    if not lengths:  # one empty sequence, whose state is taken away again
        row = [
            None if share is Share.STATE else x for x, share in zip(arguments, shares, strict=True)
        ]
        y, state = call(*row)
        return y, state[:0]
    results = [call(*row) for row in zip(*columns, strict=True)]
    return torch.cat([y for y, _ in results], dim=1), torch.cat([state for _, state in results])


def _split(x: Tensor | None, share: Share, lengths: list[int]) -> Sequence[Tensor | None]:
    if x is None or share is Share.ALL:
        return [x] * len(lengths)
    return x.split(1) if share is Share.STATE else x.split(lengths, dim=1)
