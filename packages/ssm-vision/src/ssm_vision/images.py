"""Images that are made larger."""

from __future__ import annotations

import torch
from torch import Tensor


def mirrored_indices(length: int, wanted: int) -> Tensor:
    """Places 0 .. length - 1, then back and forth until there are `wanted`: 0 1 2 1 0 1 for 3, 6."""
    place = torch.arange(wanted) % max(2 * (length - 1), 1)
    return torch.minimum(place, 2 * (length - 1) - place).abs()
