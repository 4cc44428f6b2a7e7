"""What a run learns: the loss of a batch and the metrics of an evaluation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from torchmetrics import MetricCollection


class Task(ABC):
    """One way to learn from batches of (inputs, targets).

    Attributes:
        monitor: name of the metric shown in tables ("accuracy", "loss").
        higher_is_better: direction of `monitor`.
    """

    monitor: ClassVar[str] = "loss"
    higher_is_better: ClassVar[bool] = False

    @abstractmethod
    def loss(self, model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        """Mean loss of the batch (a scalar) and the outputs that the metrics need."""

    @abstractmethod
    def metrics(self) -> MetricCollection:
        """Fresh metrics for one evaluation; the mean loss is measured by the engine itself."""

    def update(self, metrics: MetricCollection, outputs: Tensor, batch: Any) -> None:
        """Add one batch to the metrics."""
        metrics.update(outputs, batch[1])

    def count(self, batch: Any) -> int:
        """How many items the mean loss of this batch averages over."""
        targets = batch[1]
        return int(targets.numel()) if isinstance(targets, torch.Tensor) else len(targets)
