"""Where the tokens of an image stand in Vim's sequence, and their position embedding for any size.

Patches follow one another row by row. None, one or two class tokens stand among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ssm_core.errors import CheckpointError
from ssm_core.norm import at_least_float32
from ssm_core.shapes import Activations
from ssm_vision.models.image_model import FeatureMap
from ssm_vision.models.vim_config import ClassToken


class Places(NamedTuple):
    """The places of patches and class tokens in a sequence of l tokens."""

    rows: int
    columns: int
    class_at: tuple[int, ...]
    """indices of the class tokens in the sequence, increasing"""

    @property
    def length(self) -> int:
        """l, all tokens."""
        return self.rows * self.columns + len(self.class_at)

    def with_class_tokens(self, patches: Activations, tokens: Sequence[Tensor]) -> Activations:
        """Insert the class tokens (1 or b, 1, d) into the patches (b, rows columns, d)."""
        if not tokens:
            return patches
        pieces, start = [], 0
        for before, (place, token) in enumerate(zip(self.class_at, tokens, strict=True)):
            pieces += [patches[:, start : place - before], token.expand(patches.shape[0], -1, -1)]
            start = place - before
        return torch.cat([*pieces, patches[:, start:]], dim=1)

    def class_tokens(self, x: Activations) -> list[Tensor]:
        """The class tokens (b, 1, d) of a sequence (b, l, d)."""
        return [x[:, place : place + 1] for place in self.class_at]

    def patches(self, x: Activations) -> Activations:
        """A sequence (b, l, d) without its class tokens, (b, rows columns, d)."""
        bounds = [-1, *self.class_at, x.shape[1]]
        pieces = [x[:, a + 1 : b] for a, b in pairwise(bounds) if b - a > 1]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1)

    def grid(self, x: Activations) -> FeatureMap:
        """The patches of a sequence (b, l, d) on their grid, (b, d, rows, columns)."""
        return self.patches(x).unflatten(1, (self.rows, self.columns)).permute(0, 3, 1, 2)


def places_of(class_token: ClassToken, rows: int, columns: int) -> Places:
    """The places that tokens have with a class token of that kind (random: the middle)."""
    patches = rows * columns
    class_at: dict[str, tuple[int, ...]] = {
        "head": (0,),
        "double": (0, patches + 1),
        "none": (),
        "middle": (patches // 2,),
        "random": (patches // 2,),
    }
    return Places(rows, columns, class_at[class_token])


class Shuffle(NamedTuple):
    """An order of tokens and the way back."""

    there: Tensor
    back: Tensor

    @staticmethod
    def moving_class_token(places: Places, device: torch.device) -> Shuffle:
        """Move the one class token to a random place among the patches, the same for a whole batch.

        The place stays on the device: nothing waits for it.
        """
        new = torch.randint(places.length, (1,), device=device)
        t = torch.arange(places.length, device=device)
        (old,) = places.class_at
        patch = t - (t > new).long()
        there = torch.where(t == new, old, patch + (patch >= old).long())
        return Shuffle(there, there.argsort())


def resampled_positions(table: Tensor, own: Places, wanted: Places) -> Tensor:
    """A position embedding (1, l, d) for another grid; the same tensor if the grid is the same.

    The rows of the patches are resampled on their grid (bicubic, corners not aligned); the rows of
    the class tokens are kept and go to the places of the class tokens in the other sequence.
    """
    if own == wanted:
        return table
    grid = _resized(own.grid(table), (wanted.rows, wanted.columns))
    return wanted.with_class_tokens(grid, own.class_tokens(table))


def resampled_positions_extra_first(table: Tensor, extra: int, grid: tuple[int, int]) -> Tensor:
    """The resampling of a checkpoint's position embedding (1, l, d) before published fine-tuning.

    It comes from DeiT and takes the FIRST `extra` rows for those of the class tokens, keeps them in
    front and resamples the others as a square grid (bicubic, corners not aligned). With a class
    token in the middle this is out of step by one: row 0, really that of the first patch, is kept
    as it is, the class token's row is resampled as if it were a patch, and the patches before it
    are taken one place too far to the left. The stride-8 models were fine-tuned from such a table,
    so it is kept as published.

    Raises:
        CheckpointError: the other rows are not a square grid.
    """
    rows = table[:, extra:]
    side = int(rows.shape[1] ** 0.5)
    if side < 1 or side**2 != rows.shape[1]:
        raise CheckpointError(
            f"Vim: pos_embed has {table.shape[1]} rows, expected {extra} of class tokens and a "
            "square grid of patches"
        )
    resized = _resized(rows.unflatten(1, (side, side)).permute(0, 3, 1, 2), grid)
    return torch.cat([table[:, :extra], resized], dim=1)


def _resized(grid: FeatureMap, size: tuple[int, int]) -> Activations:
    """Resample (1, d, rows, columns) and lay the rows end to end: (1, l, d), in the type given."""
    resized = F.interpolate(at_least_float32(grid), size, mode="bicubic", align_corners=False)
    return resized.to(grid.dtype).flatten(2).transpose(1, 2)
