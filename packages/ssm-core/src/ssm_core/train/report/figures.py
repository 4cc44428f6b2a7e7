"""Training curves of all runs together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssm_core.specs import Picture
from ssm_core.train.report.facts import RunFacts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: told apart with every kind of colour vision (Okabe & Ito 2008), on white and on dark
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7f7f7f")
LINES = ("-", "--", ":", "-.")
SHOWN = ("train/", "eval/", "eval_ema/", "prune/")
COLUMNS = 3
#: times the lowest value; a shorter logarithmic axis has labels that nobody can read
LOGARITHMIC = 5


def colour(place: int) -> str:
    """The colour of the run at that place, the same everywhere in a report."""
    return COLOURS[place % len(COLOURS)]


def draw_curves(runs: Sequence[RunFacts], path: Path) -> Picture | None:
    """Training loss, evaluation loss and the other metrics against steps, one line per run.

    Returns None when matplotlib is not installed or nothing was logged.
    """
    names = _metric_names(runs)
    if not names:
        return None
    n_columns = min(COLUMNS, len(names))
    n_rows = -(-len(names) // COLUMNS)
    legend_rows = -(-len(runs) // n_columns)
    figure = new_figure(max(4.3 * n_columns, 5.0), 3.1 * n_rows + 0.22 * legend_rows + 0.2)
    if figure is None:
        return None
    for place, name in enumerate(names):
        _draw_metric(figure.add_subplot(n_rows, n_columns, place + 1), name, runs)
    handles = {
        line.get_label(): line
        for axes in figure.axes
        for line in axes.get_lines()  # a run may be missing in the first panel
    }
    order = [run.name for run in runs if run.name in handles]
    figure.legend(
        [handles[name] for name in order], order, loc="outside lower center",
        ncols=n_columns, fontsize=9, frameon=False,
    )  # fmt: skip
    figure.savefig(path, dpi=160)
    shown = ", ".join(names)
    text = (
        f"{shown} against optimizer steps, one line per run. Dotted lines beside eval/loss are "
        "train/loss: a gap that opens is overfitting. Losses that fall far have a logarithmic axis."
    )
    return Picture(path, None, "Training curves", text)


def _draw_metric(axes: Any, name: str, runs: Sequence[RunFacts]) -> None:
    every: list[float] = []
    for place, run in enumerate(runs):
        if name in run.curves:
            steps, values = zip(*run.curves[name], strict=True)
            style = LINES[place // len(COLOURS) % len(LINES)]
            marker = "o" if len(steps) < 25 else ""
            axes.plot(
                steps, values, style, color=colour(place), marker=marker, markersize=3,
                linewidth=1.4, label=run.name,
            )  # fmt: skip
            every += values
            if name == "eval/loss" and "train/loss" in run.curves:
                steps, values = zip(*run.curves["train/loss"], strict=True)
                axes.plot(steps, values, ":", color=colour(place), linewidth=0.8, zorder=1)
                every += values
    axes.set_xlabel("optimizer step")
    axes.set_title(name, fontsize=10)
    axes.grid(alpha=0.3)
    if name.endswith("loss") and min(every) > 0 and max(every) > LOGARITHMIC * min(every):
        axes.set_yscale("log")


def _metric_names(runs: Sequence[RunFacts]) -> list[str]:
    names = {name for run in runs for name in run.curves if name.startswith(SHOWN)}
    order = {"train/loss": 0, "eval/loss": 1}
    return sorted(names, key=lambda n: (order.get(n, 2), n))


def new_figure(width: float, height: float) -> Figure | None:
    """An empty figure (inches) that needs no display; None when matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
