"""Sequences of different lengths in one batch: padded (b, l, d) with a mask, or packed end to end.

Packed sequences lie behind one another along the steps of a batch of one, (1, total, d); their
offsets `cu_seqlens` = [0, end of the first, .., total] say where. No layer computes a padded step,
and no padded step reaches a state.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ssm_core.shapes import Activations, Offsets, StepMask
from ssm_kernels.checks import checked_lengths, count_sequences
from ssm_kernels.errors import ArgumentError, DTypeError, ShapeError


class Packed(NamedTuple):
    """Sequences end to end."""

    x: Activations
    """(1, total, d)"""
    cu_seqlens: Offsets
    """(b + 1,) int64"""


def pack(x: Activations, mask: StepMask) -> Packed:
    """Lay the steps of x (b, l, d) where `mask` (b, l) is True end to end, sequence by sequence.

    Cost: waits for the device to count the steps.
    """
    ends = mask.sum(dim=1).cumsum(dim=0)
    return Packed(x[mask].unsqueeze(0), torch.cat([ends.new_zeros(1), ends]))


def unpack(packed: Activations, mask: StepMask) -> Activations:
    """Undo `pack` for a result (1, total, d): (b, l, d), zero where `mask` is False."""
    y = packed.new_zeros(*mask.shape, packed.shape[2])
    return y.masked_scatter(mask.unsqueeze(2), packed)


def steps_of(cu_seqlens: Offsets, device: torch.device) -> StepMask:
    """Return the mask (sequences, longest) that is True on the steps of each sequence.

    With it `unpack` pads packed sequences on the right, and `pack` takes the padding away again.
    """
    lengths = cu_seqlens.to(device).diff()
    longest = int(lengths.max()) if len(lengths) else 0
    return torch.arange(longest, device=device) < lengths.unsqueeze(1)


def check_packed(owner: str, x: Tensor, cu_seqlens: object) -> int:
    """Check the offsets of sequences packed in x (1, l, d); return how many sequences there are.

    Raises:
        ShapeError, DTypeError: the batch is not 1, or the offsets are no vector of integers.
        ArgumentError: offsets on the CPU do not start at 0, end at l, or decrease.
    """
    sequences = count_sequences(owner, cu_seqlens, x)
    assert isinstance(cu_seqlens, Tensor)
    if cu_seqlens.device.type == "cpu" and not torch.compiler.is_compiling():
        checked_lengths(owner, cu_seqlens, x.shape[1])
    return sequences


def check_mask(owner: str, x: Tensor, mask: object, cu_seqlens: object) -> None:
    """Check the mask of the real steps of x (b, l, d).

    Raises:
        ShapeError, DTypeError: the mask is not (b, l), or not boolean.
        ArgumentError: there are offsets too.
    """
    if not isinstance(mask, Tensor) or mask.dtype is not torch.bool:
        kind = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise DTypeError(f"{owner}: mask is {kind}, expected torch.bool, True on real steps")
    if mask.shape != x.shape[:2]:
        raise ShapeError(
            f"{owner}: mask has shape {tuple(mask.shape)}, expected (b, l) = {tuple(x.shape[:2])}"
        )
    if cu_seqlens is not None:
        raise ArgumentError(f"{owner}: mask and cu_seqlens are both given, expected one of them")
