"""Curves of the runs on tiny Shakespeare: read, timed and drawn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from torch.nn import functional as F

from ssm_core.train.folder import read_status
from ssm_core.train.loggers import read_metrics
from ssm_core.train.report.figures import COLOURS, new_figure
from ssm_core.train.restore import load_run

ROUNDS = 5


@dataclass(frozen=True)
class Curve:
    """Losses of a run, (step, nats per character), and the time of a step."""

    parameters: int
    training: list[tuple[int, float]]
    held_out: list[tuple[int, float]]
    step_s: float

    @property
    def seconds(self) -> float:
        """Of all steps, without evaluations."""
        return self.held_out[-1][0] * self.step_s


def curve_of(run: Path, step_s: float = 0.0) -> Curve:
    """What a finished run logged."""
    metrics = read_metrics(run / "metrics.csv")
    parameters = read_status(run)["parameters"]
    return Curve(parameters, metrics["train/loss"], metrics["eval/loss"], step_s)


def loss_at(curve: Curve, step: float) -> float:
    """The held-out loss at a step, interpolated between evaluations."""
    steps, losses = zip(*curve.held_out, strict=True)
    return float(np.interp(step, steps, losses))


def step_seconds(runs: Mapping[str, Path], batch_size: int, context: int) -> dict[str, float]:
    """Median seconds of a training step, all models in turn: a busy machine slows all alike."""
    models = {name: load_run(run).module.train() for name, run in runs.items()}
    optimizers = {
        name: torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
        for name, model in models.items()
    }
    times: dict[str, list[float]] = {name: [] for name in models}
    for i in range(ROUNDS + 1):
        print(f"timing training steps, round {i} of {ROUNDS}", flush=True)
        for name, model in models.items():
            ids = torch.randint(65, (batch_size, context + 1))
            began = time.perf_counter()
            logits = model(ids[:, :-1])
            optimizers[name].zero_grad(set_to_none=True)
            F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).backward()
            optimizers[name].step()
            times[name].append(time.perf_counter() - began)
    return {name: statistics.median(values[1:]) for name, values in times.items()}  # 0: warm-up


def draw_comparison(curves: Mapping[str, Curve], path: Path) -> None:
    """Held-out loss against steps and against seconds, one line per model."""
    figure = new_figure(9.0, 4.0)
    assert figure is not None
    by_step, by_time = figure.subplots(1, 2, sharey=True)
    for (name, curve), colour in zip(curves.items(), COLOURS, strict=False):
        steps, losses = (np.array(axis) for axis in zip(*curve.held_out, strict=True))
        options = {"color": colour, "marker": "o", "markersize": 3, "linewidth": 1.4, "label": name}
        by_step.plot(steps, losses, **options)
        by_time.plot(steps * curve.step_s, losses, **options)
    _label(by_step, "optimizer step", "equal steps")
    _label(by_time, "seconds of training", "equal time")
    by_step.set_ylabel("held-out loss, nats per character")
    by_time.legend(fontsize=9)
    figure.savefig(path, dpi=130)


def draw_overfitting(curves: Mapping[str, Curve], path: Path) -> None:
    """Training loss (dashed) and held-out loss of every run."""
    figure = new_figure(6.0, 4.0)
    assert figure is not None
    axes = figure.add_subplot()
    for (name, curve), colour in zip(curves.items(), COLOURS, strict=False):
        axes.plot(
            *zip(*curve.training, strict=True), "--", color=colour, linewidth=1.2,
            label=f"training, {name}",
        )  # fmt: skip
        axes.plot(
            *zip(*curve.held_out, strict=True), color=colour, marker="o", markersize=3,
            linewidth=1.4, label=f"held out, {name}",
        )  # fmt: skip
    _label(axes, "optimizer step", "Mamba of width 512")
    axes.set_ylabel("loss, nats per character")
    axes.legend(fontsize=9)
    figure.savefig(path, dpi=130)


def _label(axes: Axes, x: str, title: str) -> None:
    axes.set_xlabel(x)
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
