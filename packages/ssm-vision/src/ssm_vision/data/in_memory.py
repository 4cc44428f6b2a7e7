"""Images kept in memory as bytes and handed out as whole normalised batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Normalisation:
    """Maps stored bytes to numbers of mean 0 and standard deviation 1: (v / white - mean) / std.

    Attributes:
        mean, std: one number per channel, published for the data set, on the scale 0..1.
        white: the stored value that means 1.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    white: float = 255.0

    def __call__(self, images: Tensor) -> Tensor:
        """images (b, c, y, x) uint8 -> (b, c, y, x) float32."""
        std = torch.tensor(self.std)
        scale = (1 / (self.white * std)).view(-1, 1, 1)
        shift = (torch.tensor(self.mean) / std).view(-1, 1, 1)
        return images.to(torch.float32).mul_(scale).sub_(shift)


class InMemoryImages(Dataset[Batch]):
    """A data set whose unit of work is the batch: one indexing operation and one normalisation.

    Args:
        images: (n, c, y, x) uint8.
        labels: (n,) int64.
        augment: changes a batch of bytes (b, c, y, x) at random, drawing from torch's generator.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        normalise: Normalisation,
        augment: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.images, self.labels = images, labels
        self.normalise, self.augment = normalise, augment

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Batch:
        """One example: image (c, y, x) and label ()."""
        images, labels = self.__getitems__([index])
        return images[0], labels[0]

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """The batch (images (b, c, y, x), labels (b,)); the loader calls this by its own choice."""
        where = torch.as_tensor(indices, dtype=torch.int64)
        images = self.images[where]
        if self.augment is not None:
            images = self.augment(images)
        return self.normalise(images), self.labels[where]


def as_is(batch: Batch) -> Batch:
    """The collate function of `InMemoryImages`: its batches are complete already."""
    return batch


def shift_and_flip(images: Tensor, margin: int = 4) -> Tensor:
    """Move each image by up to `margin` pixels (black comes in) and mirror every second one.

    Args:
        images: (b, c, y, x) of any type.
    Source: He et al. 2016, arXiv:1512.03385, section 4.2 (pad by 4, random crop, mirror).
    """
    b, _, height, width = images.shape
    padded = torch.nn.functional.pad(images, (margin, margin, margin, margin))
    rows = torch.randint(2 * margin + 1, (b, 1)) + torch.arange(height)
    columns = torch.randint(2 * margin + 1, (b, 1)) + torch.arange(width)
    mirrored = torch.rand(b, 1) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    picked = padded[torch.arange(b)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return picked.movedim(3, 1)
