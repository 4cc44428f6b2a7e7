"""Metrics of segmentations, from one table of counts over all pixels of all images.

Pooled on purpose: the mean of per-image figures would let an image with few foreground pixels weigh
as much as one that is full of them, and the published figures of VM-UNet are pooled.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import torch
from torch import Tensor
from torchmetrics import Metric

Counts: TypeAlias = Annotated[Tensor, "true predicted"]


class PixelMetric(Metric):
    """Counts pixels by true and predicted class; the metrics of a collection share the table."""

    is_differentiable = False
    full_state_update = False
    counts: Counts

    def __init__(self, n_classes: int) -> None:
        """Count pixels of `n_classes` classes (2 for a binary mask)."""
        super().__init__()
        self.n_classes = n_classes
        zeros = torch.zeros(n_classes, n_classes, dtype=torch.int64)
        self.add_state("counts", zeros, dist_reduce_fx="sum")

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        """Add pixels: classes of any shape, int64; targets below 0 are not counted."""
        counted = targets >= 0
        cells = targets[counted] * self.n_classes + predictions[counted]
        added = torch.bincount(cells, minlength=self.n_classes**2)
        self.counts += added.view(self.n_classes, self.n_classes)

    def compute(self) -> Tensor:
        """The metric, 0..1."""
        raise NotImplementedError


class PixelAccuracy(PixelMetric):
    """Share of the pixels whose predicted class is the true one."""

    def compute(self) -> Tensor:
        return self.counts.trace() / self.counts.sum().clamp(min=1)


class IoU(PixelMetric):
    """Intersection over union, of one class or the mean over the classes that occur.

    A class that is neither in the truth nor in the prediction has an IoU of 1: nothing is wrong.
    """

    def __init__(self, n_classes: int, chosen: int | None) -> None:
        """Measure the class `chosen`, or with None the mean over classes."""
        super().__init__(n_classes)
        self.chosen = chosen

    def compute(self) -> Tensor:
        both = self.counts.diagonal()
        union = self.counts.sum(0) + self.counts.sum(1) - both
        values = torch.where(union > 0, self.overlap(both, union), 1.0)
        if self.chosen is not None:
            return values[self.chosen]
        occurs = union > 0
        return values[occurs].mean() if bool(occurs.any()) else values.mean()

    @staticmethod
    def overlap(both: Tensor, union: Tensor) -> Tensor:
        """One value per class from counts of pixels."""
        return both / union


class Dice(IoU):
    """2 |both| / (|true| + |predicted|), the F1 score of pixels."""

    @staticmethod
    def overlap(both: Tensor, union: Tensor) -> Tensor:
        return 2 * both / (union + both)
