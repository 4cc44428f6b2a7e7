"""Packed sequences as mamba_ssm marks them: a number on every step."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ssm_core.shapes import Activations, Offsets
from ssm_kernels.errors import DTypeError, ShapeError


def with_rest(cu_seqlens: Offsets, steps: int) -> Offsets:
    """Offsets [0, .., n, l] that end with `steps` l: padding behind the sequences is one more.

    It has no steps where they fill all of them; to look whether they do would wait for the device.
    """
    if not isinstance(cu_seqlens, Tensor) or cu_seqlens.dim() != 1:
        return cu_seqlens  # for the layer to refuse
    return F.pad(cu_seqlens, (0, 1), value=steps)


def offsets_of(x: Activations, seq_idx: Tensor | None, owner: str = "Mamba2") -> Offsets | None:
    """Where sequences begin in the rows of x (b, l, d) laid end to end, and the end.

    A sequence begins with each row and where `seq_idx` (b, l) differs from the step before. Waits
    for the device to count them.

    Raises:
        ShapeError, DTypeError: `seq_idx` is not (b, l) integers.
    """
    if seq_idx is None:
        return None
    if seq_idx.shape != x.shape[:2]:
        raise ShapeError(
            f"{owner}: seq_idx has shape {tuple(seq_idx.shape)}, "
            f"expected (b, l) = {tuple(x.shape[:2])} like u"
        )
    if seq_idx.is_floating_point() or seq_idx.is_complex():
        raise DTypeError(f"{owner}: seq_idx is {seq_idx.dtype}, expected integers")
    begins = torch.ones_like(seq_idx, dtype=torch.bool)
    begins[:, 1:] = seq_idx[:, 1:] != seq_idx[:, :-1]
    first = begins.flatten().nonzero().squeeze(1)
    return F.pad(first, (0, 1), value=seq_idx.numel())
