"""Pictures of what happens inside an image model, whatever it was trained for."""

from __future__ import annotations

import torch
from torch import Tensor

from ssm_core import Picture
from ssm_vision import visualize
from ssm_vision.examples import choose
from ssm_vision.scene import Scene

N_SHOWN = 8
#: among so many images the examples are looked for
N_POOL = 256


def draw_model(scene: Scene) -> list[Picture]:
    """Draw the step sizes of models that have them (`has_step_sizes`, `step_sizes(images)`)."""
    if not len(scene.data.evaluation):  # type: ignore[arg-type]
        return []
    pictures = []
    if getattr(scene.model, "has_step_sizes", False):
        figure = visualize.delta_figure(scene.model, examples(scene), delta_title(scene.name))
        pictures.append(scene.picture("delta", figure, "Step sizes", DELTA_TEXT))
    return pictures


DELTA_TEXT = (
    "The step size Delta of every layer over example images: where it is large (bright), the layer "
    "writes the patch into its state; where it is small, it keeps what it knew."
)


def delta_title(name: str) -> str:
    """Heading of a Delta picture."""
    return f"{name}: step size $\\Delta$ (bright: the patch is written into the state)"


def pool(scene: Scene) -> tuple[Tensor, list[object]]:
    """Up to `N_POOL` evaluation images (b, c, y, x), evenly spread over the data, and targets."""
    size = len(scene.data.evaluation)  # type: ignore[arg-type]
    count = min(N_POOL, size)
    pairs = [scene.data.evaluation[i * size // count] for i in range(count)]
    return torch.stack([image for image, _ in pairs]), [target for _, target in pairs]


@torch.no_grad()
def examples(scene: Scene) -> visualize.Examples:
    """Telling evaluation images: for a classifier of every class and mistakes, else spread out."""
    images, targets = pool(scene)
    images = images.to(scene.device)
    outputs = scene.model(images)
    if outputs.dim() == 2 and all(isinstance(t, int) or t.dim() == 0 for t in targets):
        labels = torch.tensor([int(t) for t in targets])
        where = choose(labels, outputs.argmax(dim=1).cpu(), N_SHOWN)
        return visualize.Examples(images[where], labels[where], scene.source)
    where = [i * len(images) // N_SHOWN for i in range(min(N_SHOWN, len(images)))]
    return visualize.Examples(images[where], None, scene.source)
