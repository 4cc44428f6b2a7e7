"""Examples per second in training: what the run's log says, or else a measurement."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ssm_core.plugins import PluginHost

WARM_UP = 2
MOST_STEPS = 20
MOST_SECONDS = 3.0


@dataclass(frozen=True)
class Throughput:
    """Training examples per second, loading included.

    Attributes:
        measured: whether this comes from a measurement on the machine that writes the report,
            not from the log, that is from the machine that trained.
    """

    examples_per_s: float
    measured: bool

    def __str__(self) -> str:
        rate = self.examples_per_s
        return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


def from_log(
    step_s: Sequence[float], batch_size: int | None, eval_every: int | None
) -> Throughput | None:
    """The median epoch's throughput, or None if the log has nothing to say.

    Args:
        step_s: `time/step_s` of each completed epoch.
        batch_size: `loader.batch_size`.
        eval_every: `trainer.eval_every`; with evaluations inside, an epoch's time says little.
    """
    seconds = [value for value in step_s if value > 0]
    if not seconds or not batch_size or eval_every:
        return None
    return Throughput(batch_size / statistics.median(seconds), False)


def measure(host: PluginHost, run: Path) -> Throughput:
    """Time a few training steps of the run's model on its data; nothing is written.

    After `WARM_UP` steps, the median of up to `MOST_STEPS` within about `MOST_SECONDS`, on the
    device that training would take here.

    Raises:
        SsmError: the run has no weights, or its data cannot be had.
    """
    from ssm_core.train.batches import train_loader
    from ssm_core.train.fabric import make_fabric
    from ssm_core.train.optim import make_optimizer
    from ssm_core.train.restore import load_run

    restored = load_run(run, host=host)
    config, task = restored.config, restored.task
    fabric = make_fabric(config.trainer.accelerator, config.trainer.precision)
    fabric.launch()
    data = config.specs["data"].build(config.typed["data"])
    loader = train_loader(data, config.loader, config.trainer.seed, rank=0, world=1)
    module = restored.module.to(fabric.device).train()
    model, optimizer = fabric.setup(module, make_optimizer(module, config.optim))

    def step(batch: Any) -> None:
        optimizer.zero_grad(set_to_none=True)
        with fabric.autocast():
            loss, _ = task.loss(model, fabric.to_device(batch))
        fabric.backward(loss)
        optimizer.step()
        if fabric.device.type == "cuda":
            torch.cuda.synchronize(fabric.device)

    seconds = median_seconds(step, _endless(loader))
    return Throughput(min(config.loader.batch_size, len(data.train)) / seconds, True)


def median_seconds(step: Callable[[Any], None], batches: Iterator[Any]) -> float:
    """The median duration of taking a batch and making a step with it, after warming up."""
    for _ in range(WARM_UP):
        step(next(batches))
    durations: list[float] = []
    while len(durations) < MOST_STEPS and sum(durations) < MOST_SECONDS:
        began = time.perf_counter()
        step(next(batches))
        durations.append(time.perf_counter() - began)
    return statistics.median(durations)


def _endless(loader: Any) -> Iterator[Any]:
    while True:
        yield from loader
