"""Drawing images from a `PixelModel`: one step of the tower per pixel, its state carried along."""

from __future__ import annotations

import torch
from torch import Tensor

from ssm_core.errors import ConfigError
from ssm_vision.generative.pixel_model import Labels, PixelModel
from ssm_vision.generative.unit_range import check_images, check_labels, finite_positive
from ssm_vision.models.image_model import Images


@torch.no_grad()
def draw_pixels(
    model: PixelModel,
    labels: Labels | int,
    generator: torch.Generator,
    temperature: float = 1.0,
    given: Images | None = None,
    rows: int = 0,
) -> Images:
    """Draw images (b, c, y, x) of 0..1, all at once.

    Args:
        labels: classes (b,) int64 for a conditional model, else how many images, b.
        generator: of the choices, on the model's device.
        temperature: divides the logits; below 1 is bolder.
        given: images (b, c, y, x), normalised, whose first `rows` rows are kept and completed.
    Raises:
        ShapeError: labels that the model does not want, images of another size.
        ConfigError: more rows than the image has, rows of no image, or a temperature of 0 or less.

    Cost: y x c steps of the tower.
    """
    finite_positive("draw_pixels", "temperature", temperature)
    if not 0 <= rows <= (model.rows if given is not None else 0):
        raise ConfigError(
            f"draw_pixels: rows is {rows}, expected 0 to {model.rows}, and 0 without given images"
        )
    classes = labels if isinstance(labels, Tensor) else None
    batch = len(classes) if classes is not None else int(labels)
    check_labels("draw_pixels", classes, model.config.conditional, batch)
    levels = model.row.new_full((batch, model.rows, model.columns), -1, dtype=torch.int64)
    state = model.tower.initial_state(batch)
    if given is not None and rows:
        check_images("draw_pixels", given, model.info.input_shape)
        levels[:, :rows] = model.quantise(given)[:, :rows]
        tokens = model.tokens(levels[:, :rows], classes)
        _, state = model.tower(tokens, state=state, return_state=True)
    canvas = model.padded(levels)
    width, side = 2 * model.side + 1, model.side
    for y in range(rows, model.rows):
        for x in range(model.columns):
            window = canvas[:, y : y + model.config.reach + 1, x : x + width]
            y_t, state = model.tower.step(model.token(window, (y, x), classes), state)
            chances = (model.head(y_t).float() / temperature).softmax(dim=1)
            drawn = torch.multinomial(chances, 1, generator=generator).squeeze(1)
            canvas[:, y + model.config.reach, x + side] = drawn
    reach = model.config.reach
    return model.dequantise(canvas[:, reach:, side : side + model.columns])
