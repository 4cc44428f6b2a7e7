"""The picture of a run of the task `classification`: which classes it takes for which."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from ssm_core import Picture
from ssm_vision import visualize
from ssm_vision.scene import Scene

#: enough for MNIST and CIFAR-10 whole; a larger set would make a report slow on a CPU
MOST_IMAGES = 10_000
#: named in the caption
MOST_MISTAKES = 3


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
    figure = visualize.confusion_figure(counts, info.labels, f"{scene.name}: {source}")
    text = describe(counts, info.labels)
    return [scene.picture("confusion", figure, "Confusion matrix", text)]


@torch.no_grad()
def predict(scene: Scene) -> Predictions:
    """Classify the evaluation images, or `MOST_IMAGES` of them evenly spread over the data."""
    images: Dataset[object] = scene.data.evaluation
    size = len(images)  # type: ignore[arg-type]
    whole = size <= MOST_IMAGES
    if not whole:  # folders are sorted by class: the first ones would be of a few classes only
        images = Subset(images, [i * size // MOST_IMAGES for i in range(MOST_IMAGES)])
    loader = DataLoader(
        images,
        batch_size=scene.restored.config.loader.eval_batch_size,
        collate_fn=scene.data.collate,
    )
    labels, classes = [torch.empty(0, dtype=torch.int64)], [torch.empty(0, dtype=torch.int64)]
    for batch, truth in loader:
        labels.append(truth)
        classes.append(scene.model(batch.to(scene.device)).argmax(dim=1).cpu())
    return Predictions(torch.cat(labels), torch.cat(classes), whole)


def describe(counts: Tensor, labels: tuple[str, ...]) -> str:
    """Accuracy and the most frequent mistakes of a confusion matrix (classes, classes) in words."""
    total, right = int(counts.sum()), int(counts.trace())
    text = f"{right:,} of {total:,} images are classified correctly"
    text += f" ({right / total:.2%})." if total else "."
    mistakes = counts.clone().fill_diagonal_(0)
    order = mistakes.flatten().argsort(descending=True, stable=True)[:MOST_MISTAKES].tolist()
    names = labels or tuple(str(i) for i in range(len(counts)))
    parts = []
    for place in order:
        true, predicted = divmod(place, len(counts))
        times = int(mistakes[true, predicted])
        if times:
            parts.append(f"{names[true]} taken for {names[predicted]} ({times}x)")
    return text + (f" Most frequent mistakes: {', '.join(parts)}." if parts else "")
