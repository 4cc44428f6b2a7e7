"""The task of naming what an image shows: cross-entropy and accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from ssm_core import DataInfo, Task
from ssm_core.errors import ConfigError

if TYPE_CHECKING:
    from torchmetrics import MetricCollection


@dataclass(frozen=True)
class ClassificationOptions:
    """One class per example.

    Args:
        label_smoothing: probability shared out among all classes in training, 0..1.
    """

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(
                f"task.label_smoothing is {self.label_smoothing}, expected a number in [0, 1)"
            )


class Classification(Task):
    """Batches are (inputs (b, ...), labels (b,) int64), the model gives logits (b, classes)."""

    monitor: ClassVar[str] = "accuracy"
    higher_is_better: ClassVar[bool] = True

    def __init__(self, options: ClassificationOptions, info: DataInfo) -> None:
        self.options, self.info = options, info

    def loss(self, model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy and logits; the labels are smoothed in training only, so that
        evaluation losses can be compared."""
        inputs, labels = batch
        logits = model(inputs)
        smoothing = self.options.label_smoothing if model.training else 0.0
        return F.cross_entropy(logits, labels, label_smoothing=smoothing), logits

    def metrics(self) -> MetricCollection:
        """`accuracy`: share of examples whose most likely class is the true one, 0..1."""
        from torchmetrics import MetricCollection
        from torchmetrics.classification import MulticlassAccuracy

        return MetricCollection(
            {"accuracy": MulticlassAccuracy(self.info.n_outputs, average="micro")}
        )
