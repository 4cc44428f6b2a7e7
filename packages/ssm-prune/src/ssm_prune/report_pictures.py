"""Pictures of a pruned run: sparsity over time, per layer, and the distance between masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssm_core.specs import Picture
from ssm_core.train.report.figures import COLOURS, new_figure
from ssm_prune.report_tables import achieved

#: rows of the heat map that still have room for a name each
MOST_ROWS = 48
MOST_COLUMNS = 400
WIDEST_NAME = 44


def draw_pictures(report: Mapping[str, Any], folder: Path) -> list[Picture]:
    """Draw what the report has data for into `folder`; nothing without matplotlib."""
    drawn = [_ramp(report, folder), _layers(report, folder), _distances(report, folder)]
    return [picture for picture in drawn if picture is not None]


def _ramp(report: Mapping[str, Any], folder: Path) -> Picture | None:
    updates = report["updates"]
    figure = new_figure(6.4, 3.6) if updates else None
    if figure is None:
        return None
    steps = [update["step"] for update in updates]
    axes = figure.add_subplot()
    axes.step(
        [*steps, max(report["step"], steps[-1])],
        [100 * achieved(u) for u in (*updates, updates[-1])],
        where="post", color=COLOURS[0], linewidth=2.2, label="achieved",
    )  # fmt: skip
    axes.plot(
        steps, [100 * u["target"] for u in updates], "o", markersize=3, color=COLOURS[1],
        label="requested",
    )  # fmt: skip
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("sparsity (%)")
    axes.set_ylim(0, 105)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, fontsize=9, frameon=False)
    path = folder / "ramp.png"
    figure.savefig(path, dpi=160)
    text = (
        f"Share of the {updates[0]['total']:,} weights that masks can reach, against what the "
        f"schedule asked for at each of {len(updates)} mask updates."
    )
    return Picture(path, None, "Requested and achieved sparsity", text)


def _layers(report: Mapping[str, Any], folder: Path) -> Picture | None:
    updates = [u for u in report["updates"] if u.get("removed")]
    names, sizes = _groups(report)
    if not updates or not names or len(updates[-1]["removed"]) != len(sizes):
        return None
    updates = updates[:: -(-len(updates) // MOST_COLUMNS)]
    figure = new_figure(9.6, 1.6 + 0.24 * len(names))
    if figure is None:
        return None
    rows = [
        [100 * sum(u["removed"][i] for i in places) / size for u in updates]
        for places, size in ((p, max(1, sum(sizes[i] for i in p))) for p in names.values())
    ]
    steps = [u["step"] for u in updates]
    axes = figure.add_subplot()
    edges = [*steps, max(report["step"], steps[-1] + 1)]  # each update lasts until the next one
    mesh = axes.pcolormesh(
        edges, list(range(len(rows) + 1)), rows, vmin=0, vmax=100, cmap="viridis"
    )
    axes.invert_yaxis()
    axes.set_yticks([i + 0.5 for i in range(len(rows))], [_short(n) for n in names], fontsize=8)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("optimizer step")
    figure.colorbar(mesh, ax=axes, label="sparsity (%)", pad=0.02)
    path = folder / "layers.png"
    figure.savefig(path, dpi=160)
    last = ", ".join(f"{name} {row[-1]:.0f} %" for name, row in zip(names, rows, strict=True))
    what = "layer" if len(names) < len(sizes) else "tensor"
    text = f"Sparsity of each {what} over time; in the end: {last}."
    return Picture(path, None, "Sparsity per layer over time", text)


def _groups(report: Mapping[str, Any]) -> tuple[dict[str, list[int]], list[int]]:
    """Rows of the map: name -> places of its tensors among the prunable ones, and their sizes.

    Tensors one by one, or where they are too many the layers that they belong to.
    """
    weights = {t["name"]: t.get("dense_weights", t["weights"]) for t in report["tensors"]}
    masked = report["masked_tensors"]
    sizes = [weights.get(name, 0) for name in masked]
    names = [name.removesuffix(".weight") for name in masked]
    while len(set(names)) > MOST_ROWS and any("." in name for name in names):
        deepest = max(name.count(".") for name in names)
        names = [n.rpartition(".")[0] if n.count(".") == deepest else n for n in names]
    groups: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        groups.setdefault(name, []).append(place)
    return groups, sizes


def _short(name: str) -> str:
    return name if len(name) <= WIDEST_NAME else "..." + name[3 - WIDEST_NAME :]


def _distances(report: Mapping[str, Any], folder: Path) -> Picture | None:
    found = mask_distances(report)
    figure = new_figure(5.2, 4.4) if found else None
    if figure is None:
        return None
    axes = figure.add_subplot()
    blank = float("nan")
    width = max(len(row) for row in found)
    padded = [[*row, *[blank] * (width - len(row))] for row in found]
    image = axes.imshow(padded, cmap="viridis", vmin=0)
    axes.set_xlabel("mask")
    axes.set_ylabel("mask")
    figure.colorbar(image, ax=axes, label="distance")
    path = folder / "distances.png"
    figure.savefig(path, dpi=160)
    text = f"Share of the units in which two of the {len(found)} candidate masks differ."
    return Picture(path, None, "Distance between masks", text)


def mask_distances(report: Mapping[str, Any]) -> Sequence[Sequence[float]]:
    """Row i: distances of candidate i to those before it and to itself; NaN: not compared."""
    found = [u["distances"] for u in report["updates"] if u.get("distances") is not None]
    blank = float("nan")
    # the history has the newest of the older masks first
    rows = [[*[blank] * (i - len(row)), *row[::-1], 0.0] for i, row in enumerate(found)]
    return rows if len(rows) > 1 else []
