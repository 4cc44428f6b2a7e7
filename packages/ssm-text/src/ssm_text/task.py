"""Task `language-model`: predict the next token, or the answer of a synthetic task."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssm_core import Task
from ssm_text.data.windows import IGNORED

if TYPE_CHECKING:
    from torchmetrics import MetricCollection


class LanguageModel(Task):
    """Mean cross entropy over the targets of a batch, unit: nats per token.

    Metrics: `bits_per_token` (the same loss in bits) and `accuracy` (how often the likeliest token
    is right). Targets equal to `IGNORED`, padding or questions, count nowhere. What a token is, the
    data say: with a vocabulary of characters, a character.
    """

    monitor = "loss"
    higher_is_better = False

    def loss(self, model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        """Mean loss, and (2, b, l): the loss of each target and whether it was predicted (1 or 0).

        The logits (b, l, V) are gone after this; the metrics need no second softmax.
        """
        ids, targets = batch
        logits = model(ids)
        nats = F.cross_entropy(
            logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="none"
        ).unflatten(0, targets.shape)
        # no targets: a loss of 0, not 0 / 0
        mean = nats.sum() / (targets != IGNORED).sum().clamp(min=1)
        with torch.no_grad():
            hits = (logits.argmax(-1) == targets).to(nats.dtype)
            return mean, torch.stack([nats, hits])

    def metrics(self) -> MetricCollection:
        """Fresh metrics, means over the targets."""
        from torchmetrics import MeanMetric, MetricCollection

        # "disable": a NaN loss shows as NaN; compute_groups would merge the two means into one
        return MetricCollection(
            {
                "bits_per_token": MeanMetric(nan_strategy="disable"),
                "accuracy": MeanMetric(nan_strategy="disable"),
            },
            compute_groups=False,
        )

    def update(self, metrics: MetricCollection, outputs: Tensor, batch: Any) -> None:
        """Add one batch to the metrics."""
        # selected, not weighted: MeanMetric drops its weights under nan_strategy="disable"
        nats, hits = outputs[:, batch[1] != IGNORED]
        metrics["bits_per_token"].update(nats / math.log(2))
        metrics["accuracy"].update(hits)

    def count(self, batch: Any) -> int:
        """Targets that count."""
        return int((batch[1] != IGNORED).sum())
