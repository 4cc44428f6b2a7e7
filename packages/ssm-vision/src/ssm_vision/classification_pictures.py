"""The picture of a run of the task `classification`: which classes it takes for which."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from ssm_core import Picture
from ssm_vision.confusion import confusion_figure, describe
from ssm_vision.scene import Scene

#: enough for MNIST and CIFAR-10 whole; a report is not to take much longer than a minute on a CPU
MOST_IMAGES = 10_000
MOST_PIXELS = 50_000_000


class Predictions(NamedTuple):
    """What a model says about evaluation images, in their order in the data."""

    labels: Tensor
    """true classes (n,)"""
    classes: Tensor
    """predicted classes (n,)"""
    whole: bool
    """whether these are all evaluation images"""


def draw_classification(scene: Scene) -> list[Picture]:
    """Draw the confusion matrix of a run; nothing if its data are not images (c, y, x)."""
    info = scene.restored.info
    if len(info.input_shape) != 3:
        return []
    found = predict(scene)
    counts = torch.zeros(info.n_outputs, info.n_outputs, dtype=torch.int64)
    counts.index_put_((found.labels, found.classes), torch.ones_like(found.labels), accumulate=True)
    source = scene.source if found.whole else f"{len(found.labels):,} {scene.source}"
    figure = confusion_figure(counts, info.labels, f"{scene.name}: {source}")
    text = describe(counts, info.labels)
    return [scene.picture("confusion", figure, "Confusion matrix", text)]


@torch.no_grad()
def predict(scene: Scene) -> Predictions:
    """Classify the evaluation images, or as many as a report has time for, evenly spread."""
    images: Dataset[object] = scene.data.evaluation
    size = len(images)  # type: ignore[arg-type]
    _, height, width = scene.restored.info.input_shape
    most = min(MOST_IMAGES, max(MOST_PIXELS // (height * width), 1))
    whole = size <= most
    if not whole:  # folders are sorted by class: the first ones would be of a few classes only
        images = Subset(images, [i * size // most for i in range(most)])
    loader = DataLoader(
        images,
        batch_size=scene.restored.config.loader.eval_batch_size,
        num_workers=scene.restored.config.loader.num_workers,
        collate_fn=scene.data.collate,
    )
    labels, classes = [torch.empty(0, dtype=torch.int64)], [torch.empty(0, dtype=torch.int64)]
    for batch, truth in loader:
        labels.append(truth)
        classes.append(scene.model(batch.to(scene.device)).argmax(dim=1).cpu())
    return Predictions(torch.cat(labels), torch.cat(classes), whole)
