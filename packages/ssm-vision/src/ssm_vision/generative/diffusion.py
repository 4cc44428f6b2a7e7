"""Task `diffusion`: take the noise out of images that were noised by a random number of steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ssm_core import DataInfo, Task
from ssm_core.specs import NoOptions
from ssm_vision.generative.diffusion_process import Times

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

#: metrics, by the part of the way to noise that an image had gone
PARTS = ("loss_first_quarter", "loss_second_quarter", "loss_third_quarter", "loss_last_quarter")


class Diffusion(Task):
    """Mean squared error of what a `DiffusionModel` predicts.

    Batches are (images (b, c, y, x), labels (b,) int64). Times are spread evenly over a batch, with
    one random shift for all, which makes the loss less noisy than independent times (Kingma et al.
    2021, arXiv:2107.00630, appendix I.1). In training, times and noise come from torch's generator;
    in evaluation from one of their own, which starts anew with every batch, so that the same
    weights always give the same loss (at the same `loader.eval_batch_size`).

    Metrics: the loss in each quarter of the steps.
    """

    monitor: ClassVar[str] = "loss"
    higher_is_better: ClassVar[bool] = False

    def __init__(self, options: NoOptions, info: DataInfo) -> None:
        self.info = info

    def loss(self, model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        """Mean loss, and (2, b): of each image the loss and the share of the steps it had gone."""
        images, labels = batch
        net: Any = model  # the engine's wrapper passes attributes of the model on
        process = net.process
        generator = None
        if not model.training:
            generator = torch.Generator(images.device).manual_seed(0)
        x = net.scale(images)
        t = times(len(x), process.steps, x.device, generator)
        noise = torch.empty_like(x).normal_(generator=generator)
        predicted = model(process.diffuse(x, t, noise), t, labels)
        target = process.target(x, t, noise)
        errors = (predicted.float() - target).square().flatten(1).mean(dim=1)
        return errors.mean(), torch.stack([errors.detach(), (t - 1) / process.steps])

    def metrics(self) -> MetricCollection:
        """Fresh metrics, means over the images."""
        from torchmetrics import MeanMetric, MetricCollection

        # "disable": a NaN loss shows as NaN; compute_groups would merge the means into one
        return MetricCollection(
            {name: MeanMetric(nan_strategy="disable") for name in PARTS}, compute_groups=False
        )

    def update(self, metrics: MetricCollection, outputs: Tensor, batch: Any) -> None:
        """Add one batch to the metrics."""
        errors, way = outputs
        for part, name in enumerate(PARTS):
            metrics[name].update(errors[(way * len(PARTS)).long() == part])


def times(count: int, steps: int, device: torch.device, generator: torch.Generator | None) -> Times:
    """Times 1..steps (count,) int64, evenly spread, in random order."""
    shift = torch.rand((), device=device, generator=generator)
    order = torch.randperm(count, device=device, generator=generator)
    way = (order.double() / max(count, 1) + shift.double()) % 1.0
    return (way * steps).long().clamp(max=steps - 1) + 1
