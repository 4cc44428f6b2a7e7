"""Dropout of whole features: one mask per sequence, the same at all of its steps."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from ssm_core.shapes import Activations, Offsets


def drop_features(
    y: Activations, p: float, training: bool, cu_seqlens: Offsets | None = None
) -> Activations:
    """Drop each feature of each sequence of y (b, l, h) with probability p, in training.

    The others are divided by 1 - p. With `cu_seqlens` every packed sequence has its own mask.

    Source: Gal & Ghahramani 2016, arXiv:1512.05287.
    """
    if not training or p == 0.0:
        return y
    if cu_seqlens is None:
        return y * F.dropout(torch.ones_like(y[:, :1]), p)
    keep = F.dropout(y.new_ones(cu_seqlens.shape[0] - 1, y.shape[2]), p)
    steps = torch.arange(y.shape[1], device=y.device)
    # of each step the sequence: as many as ended before it
    return y * keep[torch.bucketize(steps, cu_seqlens[1:].to(y.device), right=True)]
