"""One pass over the evaluation data."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ssm_core.plugins import PluginHost
from ssm_core.task import Task
from ssm_core.train.batches import eval_loader
from ssm_core.train.checkpoint import load_weights
from ssm_core.train.fabric import make_fabric
from ssm_core.train.folder import AVERAGE
from ssm_core.train.restore import load_run, read_config
from ssm_core.train.run import Run


def evaluate(run: Run) -> dict[str, float]:
    """Mean loss and the task's metrics over all processes, as {"eval/...": value}; with a moving
    average of the weights also {"eval_ema/...": value} for these."""

    def values() -> dict[str, float]:
        batches = itertools.islice(run.eval_loader, run.config.trainer.eval_batches)
        return measure(run.fabric, run.task, run.module, batches)

    found = values()
    if run.ema is not None:
        with run.ema.in_use():
            found |= _of_average(values())
    return found


def _of_average(values: dict[str, float]) -> dict[str, float]:
    return {f"eval_ema/{name.removeprefix('eval/')}": value for name, value in values.items()}


@torch.no_grad()
def measure(fabric: Any, task: Task, module: nn.Module, batches: Iterable[Any]) -> dict[str, float]:
    """Evaluate a model on this process's share of the batches; results are of all processes."""
    metrics = task.metrics().to(fabric.device)
    totals = torch.zeros(2, dtype=torch.float64, device=fabric.device)  # loss sum, items
    module.eval()
    for batch in batches:
        batch = fabric.to_device(batch)
        with fabric.autocast():
            loss, outputs = task.loss(module, batch)
        count = task.count(batch)
        totals += torch.tensor([float(loss) * count, count], device=totals.device)
        task.update(metrics, outputs, batch)
    if fabric.world_size > 1:
        totals = fabric.all_reduce(totals, reduce_op="sum")
    values = {"eval/loss": float(totals[0] / totals[1].clamp(min=1))}
    for name, value in metrics.compute().items():
        values[f"eval/{name}"] = float(value)
    return values


def evaluate_run(host: PluginHost, folder: Path, overrides: Sequence[str] = ()) -> dict[str, float]:
    """Evaluate a finished or interrupted run on its whole evaluation data; a finished one with a
    moving average of its weights with these too, as eval_ema/...

    Args:
        overrides: command-line words, e.g. where the data is on this machine.
    """
    restored = load_run(folder, host=host)
    config = read_config(host, folder, overrides)
    fabric = make_fabric(config.trainer.accelerator, config.trainer.precision)
    fabric.launch()
    data = config.specs["data"].build(config.typed["data"])
    loader = eval_loader(data, config.loader, fabric.global_rank, fabric.world_size)
    module = restored.module.to(fabric.device)
    found = measure(fabric, restored.task, module, loader)
    if (folder / AVERAGE).is_file():
        module.load_state_dict(load_weights(folder / AVERAGE)[0])
        found |= _of_average(measure(fabric, restored.task, module, loader))
    return found
