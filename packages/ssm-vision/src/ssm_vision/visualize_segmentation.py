"""Pictures of segmentations: image, truth, prediction and errors side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ssm_vision.visualize import displayable, new_figure, without_ticks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RGB: TypeAlias = Annotated[np.ndarray[Any, Any], "y x 3"]

#: of the classes from 1 on (0 is the background, left as it is), told apart by everybody
CLASSES = ("#009e73", "#e69f00", "#0072b2", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#882255")
MISSED, INVENTED, WRONG = "#d81b60", "#1e88e5", "#d81b60"
OPACITY = 0.45
COLUMNS = ("image", "truth", "prediction", "errors")
#: inches of a panel's side
SIDE = 2.3


class Segmented(NamedTuple):
    """One image and what is known and said about it."""

    image: Annotated[Tensor, "c y x"]
    truth: Annotated[Tensor, "y x"]
    """numbers of classes; below 0: not counted"""
    prediction: Annotated[Tensor, "y x"]
    caption: str
    """beside the row: its name or its figures"""


def segmentation_figure(shown: Sequence[Segmented], labels: Sequence[str], title: str) -> Figure:
    """One row per image: the image, truth and prediction as colours on it, and what differs.

    Args:
        labels: names of the classes; one name: of the foreground of binary masks; may be empty.
    """
    from matplotlib.patches import Patch

    binary = len(labels) == 1 or not any(int(s.truth.max()) > 1 for s in shown)
    figure = new_figure(SIDE * len(COLUMNS) + 0.5, SIDE * len(shown) + 1.0)
    figure.suptitle(title, fontsize=10)
    panels = figure.subplots(len(shown), len(COLUMNS), squeeze=False)
    for row, one in zip(panels, shown, strict=True):
        base = _base(one.image)
        pictures = (
            base,
            coloured(base, one.truth),
            coloured(base, one.prediction),
            errors(base, one.truth, one.prediction, binary),
        )
        for axes, picture in zip(row, pictures, strict=True):
            axes.imshow(picture, interpolation="antialiased")
            without_ticks(axes)
        row[0].set_ylabel(one.caption, fontsize=8)
    for axes, name in zip(panels[0], COLUMNS, strict=True):
        axes.set_title(name, fontsize=9)
    present = sorted({int(c) for s in shown for c in torch.cat([s.truth, s.prediction]).unique()})
    kinds = [(colour_of(c), _name(c, labels, binary)) for c in present if c > 0]
    if binary:
        kinds += [(MISSED, "missed"), (INVENTED, "invented")]
    else:
        kinds += [(WRONG, "another class")]
    patches = [Patch(color=colour, label=name) for colour, name in kinds]
    figure.legend(handles=patches, loc="outside lower center", ncols=6, fontsize=8, frameon=False)
    return figure


def coloured(base: RGB, classes: Tensor) -> RGB:
    """The image with a colour over every class but 0."""
    picture = base.copy()
    for number in classes.unique().tolist():
        if number > 0:
            _paint(picture, classes == number, colour_of(number), OPACITY)
    return picture


def errors(base: RGB, truth: Tensor, prediction: Tensor, binary: bool) -> RGB:
    """The image, pale, with a full colour where the prediction differs from the truth."""
    picture = 0.45 + 0.55 * base.mean(axis=2, keepdims=True).repeat(3, axis=2)
    differs = (truth != prediction) & (truth >= 0)
    if binary:
        _paint(picture, differs & (truth > 0), MISSED, 1.0)
        _paint(picture, differs & (prediction > 0), INVENTED, 1.0)
    else:
        _paint(picture, differs, WRONG, 1.0)
    return picture


def colour_of(number: int) -> str:
    """The colour of a class from 1 on; after the last one they begin again."""
    return CLASSES[(number - 1) % len(CLASSES)]


def _base(image: Tensor) -> RGB:
    """image (c, y, x) -> numbers 0..1, stretched over the image; more than 3 channels as grey."""
    scaled = displayable(image[None].float().cpu())[0]
    if len(scaled) != 3:
        scaled = scaled.mean(dim=0, keepdim=True).expand(3, -1, -1)
    return np.ascontiguousarray(scaled.movedim(0, 2).numpy())


def _paint(picture: RGB, where: Tensor, colour: str, opacity: float) -> None:
    from matplotlib.colors import to_rgb

    places = where.cpu().numpy()
    picture[places] = (1 - opacity) * picture[places] + opacity * np.array(to_rgb(colour))


def _name(number: int, labels: Sequence[str], binary: bool) -> str:
    if binary:
        return labels[0] if labels else "foreground"
    return labels[number] if number < len(labels) else f"class {number}"
