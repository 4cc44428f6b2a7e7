"""What accuracy costs: the monitored metric against parameters and against throughput."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ssm_core.specs import Picture
from ssm_core.train.report.facts import RunFacts
from ssm_core.train.report.figures import colour, new_figure


class Point(NamedTuple):
    """A run in a plot."""

    name: str
    x: float
    y: float
    colour: str
    hollow: bool = False


def draw_tradeoffs(runs: Sequence[RunFacts], folder: Path) -> list[Picture]:
    """The best metric against parameters and against throughput, with the runs' names.

    One picture per data set and metric that at least two runs share: others cannot be compared.
    None when matplotlib is not installed.
    """
    pictures = []
    for (data, metric), places in comparable(runs).items():
        figure = new_figure(9.6, 4.2)
        if figure is None:
            return []
        panels = figure.subplots(1, 2)
        group = [(runs[place], colour(place)) for place in places]
        _draw(panels[0], [p for run, c in group for p in _by_parameters(run, c)])
        _draw(panels[1], [p for run, c in group for p in _by_throughput(run, c)])
        panels[0].set_xlabel("parameters")
        panels[1].set_xlabel("training examples per second")
        for axes in panels:
            axes.set_ylabel(f"best {metric}")
        figure.suptitle(f"{metric} on {data}", fontsize=11)
        figure.draw_without_rendering()  # lays the axes out, so that texts can be measured
        for axes in panels:
            _name_points(axes)
        path = folder / f"tradeoff-{metric}-{data}.png".replace("/", "-")
        figure.savefig(path, dpi=160)
        title = f"{metric} on {data} against size and speed"
        pictures.append(Picture(path, None, title, _describe([run for run, _ in group])))
    return pictures


def comparable(runs: Sequence[RunFacts]) -> dict[tuple[str, str], list[int]]:
    """Places of the runs that share (data set, metric) with another run and have a best value."""
    groups: dict[tuple[str, str], list[int]] = {}
    for place, run in enumerate(runs):
        if run.best is not None:
            groups.setdefault((run.data, run.monitor), []).append(place)
    return {key: places for key, places in groups.items() if len(places) > 1}


def _by_parameters(run: RunFacts, colour: str) -> list[Point]:
    count = run.status.get("parameters")
    return [Point(run.name, count, run.best[1], colour)] if count and run.best else []


def _by_throughput(run: RunFacts, colour: str) -> list[Point]:
    found = run.throughput
    if found is None or run.best is None:
        return []
    return [Point(run.name, found.examples_per_s, run.best[1], colour, found.measured)]


def _draw(axes: Any, points: Sequence[Point]) -> None:
    from matplotlib.ticker import EngFormatter

    for point in points:
        face = "white" if point.hollow else point.colour
        axes.plot(
            point.x, point.y, "o", color=point.colour, markerfacecolor=face, markersize=8,
            markeredgewidth=1.8, label=point.name,
        )  # fmt: skip
    places = [point.x for point in points]
    if places and max(places) > 10 * min(places):
        axes.set_xscale("log")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.margins(0.2, 0.15)
    axes.grid(alpha=0.3)


def _name_points(axes: Any) -> None:
    """Write every point's name beside it, where it covers neither points nor other names."""
    lines = axes.get_lines()
    where = [axes.transData.transform(line.get_xydata()[0]) for line in lines]
    taken = [_around(x, y) for x, y in where]
    frame = axes.get_window_extent()
    for line in lines:
        best: tuple[float, Any, Any] | None = None
        for shift, align in _offsets():
            text = axes.annotate(
                line.get_label(), line.get_xydata()[0], shift, textcoords="offset points",
                ha=align, va="center", fontsize=8.5, color=line.get_color(), in_layout=False,
            )  # fmt: skip
            box = text.get_window_extent()
            outside = box.width * box.height - _common(box, frame)
            cost = outside + sum(_common(box, other) for other in taken)
            if best is None or cost < best[0]:
                if best is not None:
                    best[1].remove()
                best = (cost, text, box)
            else:
                text.remove()
        assert best is not None
        taken.append(best[2])


def _offsets() -> list[tuple[tuple[float, float], str]]:
    """Places of a name around its point, in points, the most natural first."""
    near = [((8.0, 0.0), "left"), ((-8.0, 0.0), "right")]
    tiers = [
        ((dx, dy), align)
        for dy in (12.0, -12.0, 24.0, -24.0, 36.0, -36.0)
        for dx, align in ((0.0, "center"), (6.0, "left"), (-6.0, "right"))
    ]
    return near + tiers


def _around(x: float, y: float) -> Any:
    from matplotlib.transforms import Bbox

    return Bbox.from_bounds(x - 8, y - 8, 16, 16)


def _common(a: Any, b: Any) -> float:
    """The area that two boxes share, in square pixels."""
    width = min(a.x1, b.x1) - max(a.x0, b.x0)
    height = min(a.y1, b.y1) - max(a.y0, b.y0)
    return float(max(width, 0.0) * max(height, 0.0))


def _describe(runs: Sequence[RunFacts]) -> str:
    parts = []
    for run in runs:
        assert run.best is not None
        count, rate = run.status.get("parameters"), run.throughput
        parts.append(
            f"{run.name}: {run.best[1]:.4g}"
            + (f" with {count:,} parameters" if count else "")
            + (f" at {rate} examples/s" if rate is not None else "")
        )
    text = "; ".join(parts) + ". Throughput is that of training, loading included:"
    return text + (
        " filled points are from the runs' logs, that is from the machines that trained; hollow "
        "ones were measured for this report."
    )
