"""Pictures of what a model does: step sizes over an image, and which classes it mixes up.

The step size Delta of a selective SSM says, patch by patch, how much of the input is written into
the state: h[t] = exp(Delta A) h[t-1] + Delta B x[t] (Gu & Dao 2023, arXiv:2312.00752, section 3.5).
A large Delta takes the patch in and forgets the past, a small one passes it by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import torch
from torch import Tensor

from ssm_vision.classifier import Images, PatchClassifier

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DeltaMaps: TypeAlias = Annotated[Tensor, "layers b y x"]

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


def delta_map(model: PatchClassifier, images: Images) -> DeltaMaps:
    """The step size Delta, averaged over channels, at every pixel of every image and layer.

    Args:
        images: (b, c, y, x), normalised as in training.
    Returns:
        (layers, b, y, x) > 0, constant over each patch; unit: steps. For a bidirectional layer the
        mean of both directions.
    Raises:
        ConfigError: the model's mixer has no step sizes.
        ShapeError: the images do not fit the model.
    Cost: one forward pass and a second convolution and projection per layer.
    """
    maps = torch.stack(model.step_sizes(images))
    patch = model.config.patch
    return maps.repeat_interleave(patch, dim=2).repeat_interleave(patch, dim=3)


def delta_figure(model: PatchClassifier, examples: Examples, title: str) -> Figure:
    """Images in the first row, their Delta maps below, one row per layer with its own colour bar.

    The heading of a column is the predicted class: green if right, red with the true one if not.
    """
    with torch.no_grad():
        predictions = model(examples.images).argmax(dim=1)
    maps = delta_map(model, examples.images)
    shown = displayable(examples.images)
    n_rows, n_columns = 1 + len(maps), len(shown)
    figure = _figure(1.15 * max(n_columns, 4) + 1.5, 1.25 * n_rows + 0.9)
    axes = figure.subplots(n_rows, n_columns, squeeze=False)
    figure.suptitle(f"{title}\n{examples.source}", fontsize=10)
    for column in range(n_columns):
        _draw_image(axes[0, column], shown[column])
        text, colour = _heading(model, examples, predictions, column)
        axes[0, column].set_title(text, color=colour, fontsize=9)
    axes[0, 0].set_ylabel("image", fontsize=9)
    for row, layer in enumerate(maps, start=1):
        low, high = float(layer.min()), float(layer.max())
        for column in range(n_columns):
            panel = axes[row, column]
            drawn = panel.imshow(layer[column].cpu().numpy(), cmap="magma", vmin=low, vmax=high)
            _outline(panel, shown[column])
            _without_ticks(panel)
        axes[row, 0].set_ylabel(f"$\\Delta$, layer {row}", fontsize=9)
        bar = figure.colorbar(drawn, ax=list(axes[row]), fraction=0.02, pad=0.01)
        bar.set_label("steps", fontsize=8)
        bar.ax.tick_params(labelsize=7)
    return figure


def confusion_figure(counts: Tensor, labels: Sequence[str], title: str) -> Figure:
    """A confusion matrix. Colours show mistakes alone, which a good model's diagonal would hide.

    Args:
        counts: (classes, classes) int64, rows the true class, columns the predicted one.
        labels: a name per class; empty: their numbers.
    """
    n = len(counts)
    names = list(labels) or [str(i) for i in range(n)]
    table = counts.cpu().numpy()
    mistakes = table.astype(float) / table.sum(axis=1, keepdims=True).clip(min=1)
    mistakes[range(n), range(n)] = 0.0
    accuracy = table.trace() / max(table.sum(), 1)
    side = min(2.2 + 0.36 * n, 14.0)
    figure = _figure(side + 0.8, side)
    axes = figure.add_subplot()
    worst = max(mistakes.max(), 0.05)  # a single mistake among fifty is not to look dramatic
    drawn = axes.imshow(100 * mistakes, cmap="Reds", vmin=0.0, vmax=100 * worst)
    bar = figure.colorbar(drawn, ax=axes, fraction=0.046)
    bar.set_label("mistakes, % of the true class", fontsize=9)
    axes.set_xticks(range(n), names, rotation=45 if max(map(len, names)) > 3 else 0, fontsize=8)
    axes.set_yticks(range(n), names, fontsize=8)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.set_title(f"{title}\naccuracy {accuracy:.2%} of {table.sum():,} images", fontsize=10)
    if n <= 30:  # more numbers could not be read
        dark = mistakes > 0.6 * worst
        for true, predicted in zip(*table.nonzero(), strict=True):
            colour = "white" if dark[true, predicted] else "black"
            axes.text(
                predicted,
                true,
                str(table[true, predicted]),
                ha="center",
                va="center",
                color=RIGHT if true == predicted else colour,
                fontsize=8,
            )
    return figure


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


def _figure(width: float, height: float) -> Figure:
    """An empty figure (inches) that needs no display and leaves no trace in pyplot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _heading(
    model: PatchClassifier, examples: Examples, predictions: Tensor, column: int
) -> tuple[str, str]:
    names = model.info.labels or tuple(str(i) for i in range(model.info.n_outputs))
    guess = names[int(predictions[column])]
    if examples.labels is None:
        return guess, "black"
    truth = names[int(examples.labels[column])]
    return (guess, RIGHT) if guess == truth else (f"{guess} (is {truth})", WRONG)


def _draw_image(axes: Any, image: Tensor) -> None:
    """image (c, y, x) in 0..1."""
    if len(image) == 3:
        axes.imshow(image.movedim(0, 2).cpu().numpy())
    else:
        axes.imshow(image.mean(dim=0).cpu().numpy(), cmap="gray", vmin=0.0, vmax=1.0)
    _without_ticks(axes)


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


def _without_ticks(axes: Any) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
