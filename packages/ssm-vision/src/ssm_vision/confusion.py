"""Which classes a classifier takes for which, in a picture and in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from ssm_vision.visualize import RIGHT, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: more classes than that have no room for numbers in the cells, and then for names at the sides
MOST_NUMBERS, MOST_NAMES = 30, 60
#: named in words
MOST_MISTAKES = 3


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
    figure = new_figure(side + 0.8, side)
    axes = figure.add_subplot()
    worst = max(mistakes.max(), 0.05)  # a single mistake among fifty is not to look dramatic
    drawn = axes.imshow(100 * mistakes, cmap="Reds", vmin=0.0, vmax=100 * worst)
    bar = figure.colorbar(drawn, ax=axes, fraction=0.046)
    bar.set_label("mistakes, % of the true class", fontsize=9)
    if n <= MOST_NAMES:
        slanted = max(map(len, names)) > 3
        axes.set_xticks(range(n), names, fontsize=8, rotation=45 if slanted else 0)
        axes.set_yticks(range(n), names, fontsize=8)
        for text in axes.get_xticklabels() if slanted else []:
            text.set(ha="right", rotation_mode="anchor")  # the name ends at its tick
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.set_title(f"{title}\naccuracy {accuracy:.2%} of {table.sum():,} images", fontsize=10)
    if n <= MOST_NUMBERS:
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


def describe(counts: Tensor, labels: Sequence[str]) -> str:
    """Accuracy and the most frequent mistakes of a confusion matrix (classes, classes) in words."""
    total, right = int(counts.sum()), int(counts.trace())
    text = f"{right:,} of {total:,} images are classified correctly"
    text += f" ({right / total:.2%})." if total else "."
    mistakes = counts.clone().fill_diagonal_(0)
    order = mistakes.flatten().argsort(descending=True, stable=True)[:MOST_MISTAKES].tolist()
    names = list(labels) or [str(i) for i in range(len(counts))]
    parts = []
    for place in order:
        true, predicted = divmod(place, len(counts))
        times = int(mistakes[true, predicted])
        if times:
            parts.append(f"{names[true]} taken for {names[predicted]} ({times}x)")
    return text + (f" Most frequent mistakes: {', '.join(parts)}." if parts else "")
