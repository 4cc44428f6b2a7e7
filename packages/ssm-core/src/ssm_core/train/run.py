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
    from torch.optim.lr_scheduler import LambdaLR
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
        step: optimizer steps completed, in the present level.
        skipped: batches that gave no step, because their float16 gradients overflowed.
        epoch: epochs completed, in the present level.
        total_steps: steps after which the level ends, and with the last level the run.
        level: how often a plugin has had the run train on after its last step
            (`ssm_steps_done`); 0 in an ordinary run.
        steps_before: optimizer steps completed in earlier levels that count for the logs.
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
    scheduler: LambdaLR
    train_loader: DataLoader[Any]
    eval_loader: DataLoader[Any]
    hooks: Any
    steps_per_epoch: int
    total_steps: int
    ema: MovingAverage | None = None
    step: int = 0
    skipped: int = 0
    epoch: int = 0
    level: int = 0
    steps_before: int = 0
    stop_reason: str | None = None
    #: where the next epoch begins in its middle, after `train_on`
    loader_state: dict[str, Any] | None = None
    #: writes {name: value} at the current step to every logger (rank 0 only)
    log: Callable[[dict[str, float]], None] = field(default=lambda metrics: None)

    @property
    def batches_of_epoch(self) -> int:
        """How many batches of the present epoch are used up."""
        return self.step + self.skipped - self.epoch * self.steps_per_epoch

    @property
    def logged_step(self) -> int:
        """The step under which numbers are logged: it grows from level to level."""
        return self.steps_before + self.step

    def train_on(self, step: int, loader_state: dict[str, Any] | None, skipped: int = 0) -> None:
        """Begin another level at `step` of the schedule and of the data; for `ssm_steps_done`.

        The learning rate and the order of the data are those that the run had there. Weights and
        optimizer are what the caller makes of them.

        Args:
            step: 0 up to total_steps - 1.
            loader_state: of `train_loader` at that step, if it was in the middle of an epoch.
            skipped: `run.skipped` at that step.
        """
        self.steps_before += self.step - step
        self.level += 1
        self.step, self.skipped = step, skipped
        self.epoch = (step + skipped) // self.steps_per_epoch
        self.loader_state = loader_state
        self.scheduler.load_state_dict(
            self.scheduler.state_dict() | {"last_epoch": step, "_step_count": step + 1}
        )
        schedule = self.scheduler
        rates = zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)
        for group, (base, factor) in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = base * factor(step)
