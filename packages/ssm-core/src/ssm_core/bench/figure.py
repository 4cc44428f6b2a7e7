"""Scaling of speed and memory against the size of the input, models beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ssm_core.bench.cases import OUT_OF_MEMORY, Row
from ssm_core.specs import BenchmarkSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKERS = "osD^vP*X"


def scaling_figure(rows: Sequence[Row], spec: BenchmarkSpec, title: str) -> Figure:
    """One column of axes per mode; throughput above, peak memory below, both logarithmic.

    A model is a colour, a batch size a marker; baselines are dashed. A cross at the edge is a size
    at which memory ran out.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    modes = sorted({row.mode for row in rows})
    sizes = sorted({row.size for row in rows})
    failed = any(row.note.startswith(OUT_OF_MEMORY) for row in rows)
    measures = {"per_s": f"{spec.unit} / s", "memory_mb": "peak memory in MB"}
    baselines = {model for model, baseline in spec.models().items() if baseline}
    figure = Figure(figsize=(5.5 * len(modes) + 3.5, 7), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    lines = {model: "--" if model in baselines else "-" for model in _models(rows)}
    axes = figure.subplots(len(measures), len(modes), squeeze=False, sharex=True, sharey="row")
    for column, mode in enumerate(modes):
        for row, (measure, label) in enumerate(measures.items()):
            part = [r for r in rows if r.mode == mode]
            _draw(axes[row, column], part, measure, lines)
            axes[row, column].set_ylabel(label if column == 0 else "")
        axes[0, column].set_title(mode)
        axes[-1, column].set_xlabel(spec.size_label + failed * " (×: out of memory)")
        axes[-1, column].set_xticks(sizes, [str(size) for size in sizes])
        axes[-1, column].minorticks_off()  # again: each new list of ticks brings them back
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=8)
    return figure


def _models(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.model for row in rows))


def _draw(axes: Any, rows: Sequence[Row], measure: str, lines: Mapping[str, str]) -> None:
    from matplotlib.ticker import LogLocator

    batches = sorted({row.batch_size for row in rows})
    for i, (model, linestyle) in enumerate(lines.items()):
        colour = f"C{i % 10}"
        for batch, marker in zip(batches, MARKERS * len(batches), strict=False):
            line = [r for r in rows if (r.model, r.batch_size) == (model, batch)]
            line.sort(key=lambda r: r.size)
            points = [(r.size, getattr(r, measure)) for r in line if getattr(r, measure)]
            axes.plot(
                [size for size, _ in points],
                [value for _, value in points],
                color=colour,
                marker=marker,
                linestyle=linestyle,
                label=f"{model}, batch {batch}",
            )
            failed = [r.size for r in line if r.note.startswith(OUT_OF_MEMORY)]
            if failed:
                # at the edge, whatever the scale: no throughput, too much memory
                edge = [0.02 if measure == "per_s" else 0.98] * len(failed)
                axes.plot(failed, edge, "x", color=colour, transform=axes.get_xaxis_transform())
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.minorticks_off()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.3)
