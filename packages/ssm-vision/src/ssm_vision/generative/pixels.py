"""Task `pixels`: predict every pixel from those before it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssm_core import DataInfo, Task
from ssm_core.specs import NoOptions

if TYPE_CHECKING:
    from torchmetrics import MetricCollection


class Pixels(Task):
    """Mean cross-entropy over the pixels of a batch, unit: nats per pixel and channel.

    Batches are (images (b, c, y, x), labels (b,) int64); the model is a `PixelModel`. Metric
    `bits_per_pixel`: the same loss in bits, of the image at the model's grey levels.
    """

    monitor: ClassVar[str] = "bits_per_pixel"
    higher_is_better: ClassVar[bool] = False

    def __init__(self, options: NoOptions, info: DataInfo) -> None:
        self.info = info

    def loss(self, model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        """Mean loss, and the loss of each image (b,)."""
        images, labels = batch
        # through the wrapper of the engine, which passes attributes of the model on
        levels: Tensor = model.quantise(images).flatten(1)  # type: ignore[operator]
        config: Any = model.config
        logits = model(images, labels if config.conditional else None)
        nats = F.cross_entropy(logits.flatten(0, 1).float(), levels.flatten(), reduction="none")
        return nats.mean(), nats.detach().unflatten(0, levels.shape).mean(dim=1)

    def metrics(self) -> MetricCollection:
        """Fresh metrics, means over the images."""
        from torchmetrics import MeanMetric, MetricCollection

        # "disable": a NaN loss shows as NaN
        return MetricCollection({"bits_per_pixel": MeanMetric(nan_strategy="disable")})

    def update(self, metrics: MetricCollection, outputs: Tensor, batch: Any) -> None:
        """Add one batch to the metrics."""
        metrics["bits_per_pixel"].update(outputs / math.log(2))

    def count(self, batch: Any) -> int:
        """Images."""
        images: torch.Tensor = batch[0]
        return len(images)
