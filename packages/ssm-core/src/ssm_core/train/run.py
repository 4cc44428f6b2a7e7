"""One training run: everything the loop, the hooks and the extensions look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from lightning_fabric import Fabric
    from torch import nn
    from torch.utils.data import DataLoader

    from ssm_core.specs import DataInfo
    from ssm_core.task import Task
    from ssm_core.train.ema import MovingAverage
    from ssm_core.train.resolve import ResolvedConfig


@dataclass
class Run:
    """The state of a run, handed to every hook.

    Attributes:
        config: the resolved configuration (`config.options` is the plain mapping).
        folder: where this run writes.
        fabric: devices, precision and processes.
        model: what the loop calls; under DDP a wrapper around `module`.
        module: the bare model; use this for parameters and state dicts.
        ema: moving average of the weights, from after `ssm_run_start` on, if it was asked for.
        step: optimizer steps completed.
        skipped: batches that gave no step, because their float16 gradients overflowed.
        epoch: epochs completed.
        total_steps: steps after which the run ends.
        stop_reason: set to a text to end the run after the current step.
    """

    config: ResolvedConfig
    folder: Path
    fabric: Fabric
    info: DataInfo
    task: Task
    module: nn.Module
    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    train_loader: DataLoader[Any]
    eval_loader: DataLoader[Any]
    hooks: Any
    steps_per_epoch: int
    total_steps: int
    ema: MovingAverage | None = None
    step: int = 0
    skipped: int = 0
    epoch: int = 0
    stop_reason: str | None = None
    #: writes {name: value} at the current step to every logger (rank 0 only)
    log: Callable[[dict[str, float]], None] = field(default=lambda metrics: None)

    @property
    def batches_of_epoch(self) -> int:
        """How many batches of the present epoch are used up."""
        return self.step + self.skipped - self.epoch * self.steps_per_epoch
