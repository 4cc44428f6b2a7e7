"""Images that are made larger."""

from __future__ import annotations

import torch
from torch import Tensor


def fill_up(images: Tensor, height: int, width: int) -> Tensor:
    """Return images (..., y, x) with at least `height` x `width` pixels.

    Rows at the bottom and columns on the right are the mirror image of the others, back and forth
    for an image that is smaller than what it lacks. One that is large enough is not copied.
    """
    for axis, wanted in ((-2, height), (-1, width)):
        length = images.shape[axis]
        if length < wanted:
            places = _back_and_forth(length, wanted).to(images.device)
            images = images.index_select(axis, places)
    return images


def _back_and_forth(length: int, wanted: int) -> Tensor:
    """The first `wanted` of 0, 1, .., length - 1, length - 2, .., 1, 0, 1, .."""
    last = length - 1
    places = torch.arange(wanted) % max(2 * last, 1)
    return torch.minimum(places, 2 * last - places)
