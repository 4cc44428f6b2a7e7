"""Sequences told apart by an id per step, as the operators take them: end to end, with offsets."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Packing(NamedTuple):
    """Where the sequences in rows of steps lie once the rows are laid end to end."""

    cu_seqlens: Tensor
    """(sequences + 1,) int64 offsets into the b l steps."""
    first: Tensor
    """(b,) which sequence each row starts with."""
    last: Tensor
    """(b,) which sequence each row ends with."""


def packing_of(seq_idx: Tensor) -> Packing:
    """Return the packing of rows whose steps have the ids `seq_idx` (b, l), l at least 1.

    A sequence is a run of equal ids in a row; a row never continues the one before.

    Cost: O(b l); waits for the GPU, as the number of sequences is a size.
    """
    b, l = seq_idx.shape
    starts = torch.ones_like(seq_idx, dtype=torch.bool)
    starts[:, 1:] = seq_idx[:, 1:] != seq_idx[:, :-1]
    sequence = starts.flatten().cumsum(0) - 1
    total = sequence.new_full((1,), b * l)
    offsets = torch.cat([starts.flatten().nonzero().squeeze(1), total])
    rows = sequence.view(b, l)
    return Packing(offsets, rows[:, 0], rows[:, -1])


def end_to_end(x: Tensor) -> Tensor:
    """(b, l, ...) -> (1, b l, ...)."""
    return x.flatten(0, 1).unsqueeze(0)


def spread_states(states: Tensor | None, packing: Packing) -> Tensor | None:
    """Give the state (b, ...) of each row to the sequence it starts with, zeros to the others."""
    if states is None:
        return None
    sequences = packing.cu_seqlens.shape[0] - 1
    zeros = states.new_zeros((sequences, *states.shape[1:]))
    return zeros.index_copy(0, packing.first, states)
