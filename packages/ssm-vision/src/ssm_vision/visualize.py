"""Pictures of what a model does: step sizes over an image; and what all pictures have in common.

The step size Delta of a selective SSM says, patch by patch, how much of the input is written into
the state: h[t] = exp(Delta A) h[t-1] + Delta B x[t] (Gu & Dao 2023, arXiv:2312.00752, section 3.5).
A large Delta takes the patch in and forgets the past, a small one passes it by.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from ssm_vision.classifier import Images, PatchMap

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ssm_core import DataInfo

DeltaMaps: TypeAlias = Annotated[Tensor, "layers b y x"]

#: rows of a Delta picture; of deeper models as many layers, evenly spread
MOST_LAYERS = 8

RIGHT, WRONG = "#1a7f37", "#c0262d"


@dataclass(frozen=True)
class Examples:
    """Images to show.

    Attributes:
        images: (b, c, y, x), normalised as the model expects them.
        labels: true classes (b,), or None where nobody knows them.
        source: where the images are from, for the title.
    """

    images: Images
    labels: Tensor | None
    source: str


class HasStepSizes(Protocol):
    """An image model whose layers have a step size Delta."""

    info: DataInfo

    @property
    def has_step_sizes(self) -> bool:
        """Whether `step_sizes` works with the mixer that was chosen."""

    def step_sizes(self, images: Images) -> list[PatchMap]:
        """The mean step size over channels, (b, rows, columns) per layer; grids may differ."""

    def __call__(self, images: Images) -> Tensor:
        """What the head says."""


def delta_map(model: HasStepSizes, images: Images) -> DeltaMaps:
    """The step size Delta, averaged over channels, at every pixel of every image and layer.

    Args:
        images: (b, c, y, x), normalised as in training.
    Returns:
        (layers, b, y, x) > 0, constant over each patch; unit: steps. For a layer that scans in
        several directions their mean.
    Raises:
        ConfigError: the model's mixer has no step sizes.
        ShapeError: the images do not fit the model.
    Cost: one forward pass and a second convolution and projection per layer.
    """
    size = images.shape[2:]
    maps = [F.interpolate(m[:, None], size=size, mode="nearest") for m in model.step_sizes(images)]
    return torch.cat(maps, dim=1).movedim(1, 0)


def delta_figure(model: HasStepSizes, examples: Examples, title: str) -> Figure:
    """Images in the first row, their Delta maps below, one row per layer with its own colour bar,
    for at most `MOST_LAYERS` layers.

    The heading of a column is the predicted class: green if right, red with the true one if not.
    A model that does not classify whole images has no headings.
    """
    headings = _headings(model, examples)
    maps = delta_map(model, examples.images)
    layers = spread(len(maps), MOST_LAYERS)
    maps = maps[layers]
    shown = displayable(examples.images)
    n_rows, n_columns = 1 + len(maps), len(shown)
    figure = new_figure(1.15 * max(n_columns, 4) + 1.5, 1.25 * n_rows + 0.9)
    axes = figure.subplots(n_rows, n_columns, squeeze=False)
    figure.suptitle(f"{title}\n{examples.source}", fontsize=10)
    for column in range(n_columns):
        draw_image(axes[0, column], shown[column])
        text, colour = headings[column]
        axes[0, column].set_title(text, color=colour, fontsize=9)
    axes[0, 0].set_ylabel("image", fontsize=9)
    for row, layer in enumerate(maps, start=1):
        low, high = float(layer.min()), float(layer.max())
        for column in range(n_columns):
            panel = axes[row, column]
            drawn = panel.imshow(layer[column].cpu().numpy(), cmap="magma", vmin=low, vmax=high)
            _outline(panel, shown[column])
            without_ticks(panel)
        axes[row, 0].set_ylabel(f"$\\Delta$, layer {layers[row - 1] + 1}", fontsize=9)
        bar = figure.colorbar(drawn, ax=list(axes[row]), fraction=0.02, pad=0.01)
        bar.set_label("steps", fontsize=8)
        bar.ax.tick_params(labelsize=7)
    return figure


def spread(count: int, most: int) -> list[int]:
    """At most `most` of the numbers 0 .. count - 1, evenly spread, with the first and the last."""
    if count <= most:
        return list(range(count))
    return [i * (count - 1) // (most - 1) for i in range(most)]


def displayable(images: Images) -> Tensor:
    """Undo an unknown normalisation: each channel is stretched to 0..1 over the batch."""
    low = images.amin(dim=(0, 2, 3), keepdim=True)
    high = images.amax(dim=(0, 2, 3), keepdim=True)
    return (images - low) / (high - low).clamp(min=1e-6)


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, making its folder, and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=160)
    return path


def new_figure(width: float, height: float) -> Figure:
    """An empty figure (inches) that needs no display and leaves no trace in pyplot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _headings(model: HasStepSizes, examples: Examples) -> list[tuple[str, str]]:
    """Text and colour over each image."""
    with torch.no_grad():
        outputs = model(examples.images)
    if outputs.dim() != 2:
        return [("", "black")] * len(examples.images)
    names = model.info.labels or tuple(str(i) for i in range(model.info.n_outputs))
    guesses = [names[i] for i in outputs.argmax(dim=1).tolist()]
    if examples.labels is None:
        return [(guess, "black") for guess in guesses]
    truths = [names[i] for i in examples.labels.tolist()]
    return [
        (guess, RIGHT) if guess == truth else (f"{guess} (is {truth})", WRONG)
        for guess, truth in zip(guesses, truths, strict=True)
    ]


def draw_image(axes: Any, image: Tensor) -> None:
    """Show an image (c, y, x) in 0..1; of other than 3 channels their mean, in grey."""
    if len(image) == 3:
        axes.imshow(image.movedim(0, 2).cpu().numpy())
    else:
        axes.imshow(image.mean(dim=0).cpu().numpy(), cmap="gray", vmin=0.0, vmax=1.0)
    without_ticks(axes)


def _outline(axes: Any, image: Tensor) -> None:
    """Draw the outline of a grey image (1, y, x), so that the map can be read against it."""
    if len(image) != 1 or not float(image.min()) < 0.5 < float(image.max()):
        return
    height, width = image.shape[1:]
    framed = torch.nn.functional.pad(image[0], (1, 1, 1, 1))  # closes lines at the border
    columns, rows = range(-1, width + 1), range(-1, height + 1)
    axes.contour(columns, rows, framed.cpu().numpy(), levels=[0.5], colors="white", linewidths=0.8)
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)


def without_ticks(axes: Any) -> None:
    """Leave out what numbers of pixels would say."""
    axes.set_xticks([])
    axes.set_yticks([])
