"""The task of naming what an image shows: cross-entropy and accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from ssm_core import DataInfo, Task
from ssm_core.errors import ConfigError
from ssm_vision.mixing import Mixing

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

#: accuracy within the best five is only measured with more classes than that
TOP = 5


@dataclass(frozen=True)
class ClassificationOptions:
    """One class per example.

    Args:
        label_smoothing: probability shared out among all classes in training, 0..1.
        mixup: alpha of the Beta law by which two images are added in training; 0: never.
        cutmix: the same for a rectangle of one image put into another.
        mix_probability: of mixing a batch, 0..1.
        switch_probability: of cutmix where mixup is on too, 0..1.
    """

    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_probability: float = 1.0
    switch_probability: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(
                f"task.label_smoothing is {self.label_smoothing}, expected a number in [0, 1)"
            )
        for key in ("mixup", "cutmix"):
            if not 0 <= getattr(self, key) < float("inf"):
                raise ConfigError(f"task.{key} is {getattr(self, key)}, expected 0 or more")
        for key in ("mix_probability", "switch_probability"):
            if not 0 <= getattr(self, key) <= 1:
                raise ConfigError(
                    f"task.{key} is {getattr(self, key)}, expected a number from 0 to 1"
                )


class Classification(Task):
    """Batches are (inputs (b, ...), labels (b,) int64), the model gives logits (b, classes)."""

    monitor: ClassVar[str] = "accuracy"
    higher_is_better: ClassVar[bool] = True

    def __init__(self, options: ClassificationOptions, info: DataInfo) -> None:
        """Take the number of classes from the data.

        Raises:
            ConfigError: mixing asked for data that are not images (c, y, x).
        """
        self.options, self.info = options, info
        self.mixing = Mixing(
            options.mixup, options.cutmix, options.mix_probability, options.switch_probability
        )
        if self.mixing.on and len(info.input_shape) != 3:
            raise ConfigError(
                f"task.mixup and task.cutmix need images (c, y, x), this data set gives "
                f"{tuple(info.input_shape)}: set both to 0"
            )

    def loss(self, model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy and logits; images are mixed and labels smoothed in training only, so
        that evaluation losses can be compared."""
        inputs, targets = batch
        if model.training and self.mixing.on:
            inputs, targets = self.mixing(inputs, targets, self.info.n_outputs)
        logits = model(inputs)
        smoothing = self.options.label_smoothing if model.training else 0.0
        return F.cross_entropy(logits, targets, label_smoothing=smoothing), logits

    def metrics(self) -> MetricCollection:
        """`accuracy`: share of examples whose most likely class is the true one, 0..1; with more
        than five classes also `accuracy_top5`: the true one is among the five most likely."""
        from torchmetrics import Metric, MetricCollection
        from torchmetrics.classification import MulticlassAccuracy

        n = self.info.n_outputs
        metrics: dict[str, Metric | MetricCollection] = {
            "accuracy": MulticlassAccuracy(n, average="micro")
        }
        if n > TOP:
            metrics[f"accuracy_top{TOP}"] = MulticlassAccuracy(n, average="micro", top_k=TOP)
        return MetricCollection(metrics)
