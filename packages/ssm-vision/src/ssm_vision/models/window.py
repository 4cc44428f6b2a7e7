"""Feature maps cut into windows and put together again, and neighbourhoods on a map.

Source: Liu et al. 2021, arXiv:2103.14030, section 3.2 (windows); Hassani et al. 2023,
arXiv:2204.07143 and Hassani & Shi 2022, arXiv:2209.15001 (neighbourhoods, dilated).
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from ssm_core.shapes import Activations
from ssm_vision.models.image_model import FeatureMap

Neighbours: TypeAlias = Annotated[Tensor, "l l"]
"""True where the position of the row may look at that of the column."""


def split_windows(x: FeatureMap, side: int) -> Activations:
    """Cut maps (b, d, y, x) into windows, (b * windows, side * side, d).

    Zeros fill up the last row and column of windows, on the right and at the bottom. Order: images,
    rows of windows, windows of a row; inside a window row by row.

    Cost: at most two copies; none for a channel-last map that is one window.
    """
    x = x.permute(0, 2, 3, 1)
    b, rows, columns, d = x.shape
    below, right = -rows % side, -columns % side
    if below or right:
        x = F.pad(x, (0, 0, 0, right, 0, below))
    down, across = (rows + below) // side, (columns + right) // side
    x = x.reshape(b, down, side, across, side, d).transpose(2, 3)
    return x.reshape(b * down * across, side * side, d)


def merge_windows(tokens: Activations, side: int, shape: torch.Size) -> FeatureMap:
    """Undo `split_windows` for a map of the given shape (b, d, y, x), without the zeros."""
    b, d, rows, columns = shape
    down, across = -(-rows // side), -(-columns // side)
    x = tokens.reshape(b, down, across, side, side, d).transpose(2, 3)
    x = x.reshape(b, down * side, across * side, d)
    return x[:, :rows, :columns].permute(0, 3, 1, 2)


def neighbours_of(
    rows: int, columns: int, window: int, dilation: int, device: torch.device
) -> Neighbours:
    """Say who sees whom on a map, positions row by row, (rows * columns, rows * columns).

    A position sees the window x window positions around it, `dilation` apart, itself in the middle;
    those outside the map do not exist, so a position at the border sees fewer.
    """

    def along(length: int) -> Tensor:
        place = torch.arange(length, device=device)
        apart = (place.unsqueeze(1) - place).abs()
        return (apart <= window // 2 * dilation) & (apart % dilation == 0)

    both = along(rows)[:, None, :, None] & along(columns)[None, :, None, :]
    return both.reshape(rows * columns, rows * columns)
