"""The picture of a run of the task `segmentation`: what it finds in images it has not seen."""

from __future__ import annotations

from typing import Any

import torch

from ssm_core import Picture
from ssm_vision.scene import Scene
from ssm_vision.segmentation import predicted
from ssm_vision.visualize import spread
from ssm_vision.visualize_segmentation import Segmented, segmentation_figure

N_SHOWN = 3
#: the figures in the title are of so many images at most: a larger set would make a report slow
MOST_IMAGES = 200

TEXT = (
    "Some of the images that were held out: the image, the truth and the prediction as colours on "
    "it, and the pixels where they differ. Dice and IoU are over the pixels of "
)


@torch.no_grad()
def draw_segmentation(scene: Scene) -> list[Picture]:
    """Draw image, truth, prediction and errors of some evaluation images."""
    images = scene.data.evaluation
    size = len(images)  # type: ignore[arg-type]
    if not size:
        return []
    task: Any = scene.restored.task
    total = task.metrics().to(scene.device)
    places = spread(size, MOST_IMAGES)
    chosen = {places[i] for i in spread(len(places), N_SHOWN)}
    shown = []
    for place in places:
        image, truth = images[place]
        logits = scene.model(image[None].to(scene.device))
        batch = (image[None], truth[None].to(scene.device))
        task.update(total, logits, batch)
        if place in chosen:
            alone = task.metrics().to(scene.device)
            task.update(alone, logits, batch)
            caption = f"held-out image {place + 1}\nDice {float(alone.compute()['dice']):.3f}"
            shown.append(Segmented(image, truth, predicted(logits)[0].cpu(), caption))
    names = {"dice": "Dice", "iou": "IoU", "pixel_accuracy": "pixel accuracy"}
    values = total.compute()
    figures = ", ".join(f"{name} {float(values[key]):.4f}" for key, name in names.items())
    count = len(places)
    of = f"{count} held-out images" if count == size else f"{count} of {size} held-out images"
    figure = segmentation_figure(
        shown, scene.restored.info.labels, f"{scene.name}: {figures} ({of})"
    )
    return [scene.picture("segmentation", figure, "Segmentations", f"{TEXT}{of}: {figures}.")]
