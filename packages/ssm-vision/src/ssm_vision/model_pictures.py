"""Pictures of what happens inside an image model, whatever it was trained for."""

from __future__ import annotations

from typing import cast

from ssm_core import Picture
from ssm_vision import examples, visualize
from ssm_vision.receptive_field import feature_maps_of, receptive_field, receptive_figure
from ssm_vision.scene import Scene

N_SHOWN = 8
DELTA_TEXT = (
    "The step size Delta of every layer over example images: where it is large (bright), the layer "
    "writes the patch into its state; where it is small, it keeps what it knew."
)
FIELD_TEXT = (
    "How strongly a feature in the middle of the image depends on every pixel: the gradient's root "
    "mean square over features, channels and {count} images, relative to its largest value. Grey "
    "pixels have no influence at all. Below: the smallest share of the pixels that has 50 % and 95 "
    "% of the sum."
)


def draw_model(scene: Scene) -> list[Picture]:
    """Draw step sizes, of models with `has_step_sizes` and `step_sizes(images)`, and receptive
    fields, of models with feature maps; nothing if there are no evaluation images."""
    deltas = bool(getattr(scene.model, "has_step_sizes", False))
    maps = feature_maps_of(scene.model)
    if not (deltas or maps) or not len(scene.data.evaluation):  # type: ignore[arg-type]
        return []
    images, targets = examples.pool(scene.data.evaluation)
    images = images.to(scene.device)
    pictures = []
    if maps:
        few = images[visualize.spread(len(images), max(len(images) // 4, N_SHOWN))]
        fields = [(m.name, receptive_field(m.features, few)) for m in maps]
        title = f"{scene.name}: effective receptive field of the centre"
        text = FIELD_TEXT.format(count=len(few))
        figure = receptive_figure(fields, title)
        pictures.append(scene.picture("receptive-field", figure, "Receptive field", text))
    if deltas:
        model = cast(visualize.HasStepSizes, scene.model)
        shown = examples.telling(model, images, targets, scene.source, N_SHOWN)
        figure = visualize.delta_figure(model, shown, delta_title(scene.name))
        pictures.append(scene.picture("delta", figure, "Step sizes", DELTA_TEXT))
    return pictures


def delta_title(name: str) -> str:
    """Heading of a Delta picture."""
    return f"{name}: step size $\\Delta$ (bright: the patch is written into the state)"
