"""Pictures of the part sweep: time against length and against channels."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

Points = dict[str, list[tuple[float, float]]]  # subject -> (size, seconds)
SWEEPS = ("length", "channels")


def draw(rows: list[dict[str, Any]], folder: Path) -> None:
    """Write scan.png and conv.png into the folder; without matplotlib say so."""
    try:
        import matplotlib
    except ImportError:
        print("no pictures: matplotlib is not installed (pip install matplotlib)")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    for operator in ("scan", "conv"):
        curves = {sweep: points(rows, f"{operator}, {sweep} ") for sweep in SWEEPS}
        if not any(curves.values()):
            print(f"no picture of the {operator}: run the part sweep")
            continue
        figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), sharey=True)
        for ax, sweep in zip(axes, SWEEPS, strict=True):
            for subject, line in curves[sweep].items():
                style = {"color": "black", "linestyle": "--"} if subject == "limit" else {}
                marker = None if subject == "limit" else "o"
                sizes, seconds = zip(*sorted(line), strict=True)
                ax.loglog(sizes, [s * 1e3 for s in seconds], label=subject, marker=marker, **style)
            ax.set_xlabel(f"{sweep} ({'l' if sweep == 'length' else 'd'})")
            ax.grid(True, which="both", alpha=0.2)
        axes[0].set_ylabel("forward + backward, ms")
        axes[0].legend()
        axes[0].set_title("batch 1, 256 channels")
        axes[1].set_title("batch 1, 1024 steps")
        figure.tight_layout()
        path = folder / f"{operator}.png"
        figure.savefig(path, dpi=120)
        pyplot.close(figure)
        print(f"wrote {path}")


def points(rows: list[dict[str, Any]], prefix: str) -> Points:
    found: Points = defaultdict(list)
    for row in rows:
        if row["part"] == "sweep" and row["case"].startswith(prefix) and row["value"] is not None:
            found[row["subject"]].append((float(row["case"].split()[-1]), row["value"]))
    return found
