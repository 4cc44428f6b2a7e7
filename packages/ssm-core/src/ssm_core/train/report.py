"""What a run achieved: a table, training curves and the pictures that plugins draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssm_core.plugins import PluginHost
from ssm_core.train.checkpoint import write_text
from ssm_core.train.folder import check_run_folder, read_status
from ssm_core.train.loggers import read_metrics

HEADER = ("run", "state", "parameters", "steps", "metric", "value", "eval loss", "s/epoch")


@dataclass(frozen=True)
class Report:
    """Rows of the table and the files that were written."""

    rows: list[tuple[str, ...]]
    files: list[Path]


def report(host: PluginHost, runs: Sequence[Path], folder: Path) -> Report:
    """Write report.md, curves.png and the plugins' pictures about `runs` into `folder`."""
    for run in runs:
        check_run_folder(run)
    folder.mkdir(parents=True, exist_ok=True)
    rows = [_row(run) for run in runs]
    files: list[Path] = []
    curves = draw_curves(runs, folder / "curves.png")
    if curves is not None:
        files.append(curves)
    for pictures in host.manager.hook.ssm_report(runs=list(runs), folder=folder):
        files += pictures
    write_text(folder / "report.md", _markdown(rows, files))
    return Report(rows, [folder / "report.md", *files])


def _row(run: Path) -> tuple[str, ...]:
    status = read_status(run)
    metrics: dict[str, float] = status.get("metrics", {})
    if not metrics and (run / "metrics.csv").is_file():
        metrics = {k: points[-1][1] for k, points in read_metrics(run / "metrics.csv").items()}
    monitor = status.get("monitor", "loss")
    step_s, steps_per_epoch = status.get("step_s"), status.get("steps_per_epoch")
    epoch_s = f"{step_s * steps_per_epoch:.1f}" if step_s and steps_per_epoch else "-"
    return (
        run.name,
        str(status.get("state", "unfinished")),
        f"{status['parameters']:,}" if "parameters" in status else "-",
        str(status.get("step", "-")),
        monitor,
        _number(metrics.get(f"eval/{monitor}")),
        _number(metrics.get("eval/loss")),
        epoch_s,
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _markdown(rows: Sequence[Sequence[str]], files: Sequence[Path]) -> str:
    lines = ["# Report", "", "| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    lines += [""] + [f"![{file.stem}]({file.name})" for file in files]
    return "\n".join(lines) + "\n"


def draw_curves(runs: Sequence[Path], path: Path) -> Path | None:
    """Training loss, evaluation loss and the other metrics against steps, one line per run.

    Returns None when matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    curves = {run.name: read_metrics(run / "metrics.csv") for run in runs}
    names = [
        n for n in _metric_names(curves) if n.startswith(("train/", "eval/", "eval_ema/", "prune/"))
    ]
    if not names:
        return None
    figure = Figure(figsize=(4.2 * len(names), 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    for place, name in enumerate(names):
        axes = figure.add_subplot(1, len(names), place + 1)
        for run, metrics in curves.items():
            if name in metrics:
                steps, values = zip(*metrics[name], strict=True)
                marker = "o" if len(steps) < 25 else ""
                axes.plot(steps, values, marker=marker, markersize=3, label=run)
        axes.set_xlabel("optimizer step")
        axes.set_title(name)
        axes.grid(alpha=0.3)
        if name.endswith("loss"):
            axes.set_yscale("log")
        if place == 0:
            axes.legend(fontsize=8)
    figure.savefig(path, dpi=140)
    return path


def _metric_names(curves: dict[str, dict[str, Any]]) -> list[str]:
    names = {name for metrics in curves.values() for name in metrics}
    order = {"train/loss": 0, "eval/loss": 1}
    return sorted(names, key=lambda n: (order.get(n, 2), n))
