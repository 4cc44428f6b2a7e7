"""Records a run: the running loss, the metrics' files and the checkpoints."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ssm_core.errors import SsmError
from ssm_core.sizes import applied_sizes
from ssm_core.train.checkpoint import save_state, save_weights
from ssm_core.train.folder import AVERAGE, LAST, WEIGHTS
from ssm_core.train.loggers import MetricsFile, tensorboard
from ssm_core.train.rng import rng_state, set_rng_state
from ssm_core.train.run import Run


class Recorder:
    """Writes what a run leaves behind; only rank 0 touches files.

    Args:
        run: the run, before its first step.
        state: the checkpoint to go on from, or None for a new run.
    """

    def __init__(self, run: Run, state: Mapping[str, Any] | None) -> None:
        self.shown_loss: float | None = None
        self.loss_sum = torch.zeros((), device=run.fabric.device)
        self.loss_steps = 0
        self.file: MetricsFile | None = None
        self.board: Any = None
        if state is not None:
            self._restore(run, state)
        if run.fabric.is_global_zero:
            keep = int(state["metrics_size"]) if state is not None else 0
            self.file = MetricsFile(run.folder / "metrics.csv", keep)
            self.board = tensorboard(run.folder / "tensorboard", run.logged_step)
        self.run = run
        run.log = self.log

    def log(self, metrics: dict[str, float]) -> None:
        """Write values at the current step."""
        if self.file is not None and metrics:
            run, step = self.run, self.run.logged_step
            epoch = run.epoch + run.steps_before // run.steps_per_epoch
            self.file.write(step, epoch, metrics)
            if self.board is not None:
                for name, value in metrics.items():
                    self.board.add_scalar(name, value, step)

    def step_metrics(
        self, run: Run, loss: Tensor, lr: float, extra: dict[str, float]
    ) -> dict[str, float]:
        """Add a step to the running loss; every `log_every` steps return what to log.

        The loss stays on its device in between, so that a GPU is not made to wait.
        """
        self.loss_sum += loss.float()
        self.loss_steps += 1
        if run.step % run.config.trainer.log_every and run.step < run.total_steps:
            return {}
        mean = self.loss_sum / self.loss_steps
        if run.fabric.world_size > 1:
            mean = run.fabric.all_reduce(mean, reduce_op="mean")  # type: ignore[assignment]
        self.shown_loss = float(mean)
        self.loss_sum = torch.zeros_like(self.loss_sum)
        self.loss_steps = 0
        if not math.isfinite(self.shown_loss):
            raise SsmError(
                f"the training loss became {self.shown_loss} before step {run.step}: lower "
                "optim.lr, lengthen optim.warmup_steps or use trainer.precision 32-true; "
                "the last checkpoint is kept"
            )
        return {"train/loss": self.shown_loss, "optim/lr": lr, **extra}

    def save(self, run: Run) -> None:
        """Write the checkpoint that a killed run goes on from."""
        if not bool(torch.isfinite(self.loss_sum)):
            return  # never replace a good checkpoint by one that holds NaN
        plugins: dict[str, Any] = {}
        run.hooks.ssm_checkpoint_save(run=run, state=plugins)
        mid_epoch = run.batches_of_epoch > 0
        generators = _gather(run, rng_state())
        if not run.fabric.is_global_zero:
            return
        assert self.file is not None
        state = {
            "step": run.step,
            "skipped": run.skipped,
            "epoch": run.epoch,
            "level": run.level,
            "steps_before": run.steps_before,
            "sizes": applied_sizes(run.module),
            "module": dict(run.module.state_dict()),
            "ema": run.ema.state_dict() if run.ema is not None else None,
            "optimizer": run.optimizer.state_dict(),
            "scheduler": run.scheduler.state_dict(),
            "precision": run.fabric.strategy.precision.state_dict(),
            "loader": run.loader_state or (loader_state(run) if mid_epoch else None),
            "rng": generators,
            "loss_sum": self.loss_sum,
            "loss_steps": self.loss_steps,
            "metrics_size": self.file.size,
            "plugins": plugins,
        }
        save_state(run.folder / LAST, state)

    def _restore(self, run: Run, state: Mapping[str, Any]) -> None:
        run.step, run.epoch = state["step"], state["epoch"]
        run.skipped = state.get("skipped", 0)
        run.level, run.steps_before = state.get("level", 0), state.get("steps_before", 0)
        run.module.load_state_dict(state["module"])
        if run.ema is not None:
            run.ema.load_state_dict(state.get("ema"))
        run.optimizer.load_state_dict(state["optimizer"])
        run.scheduler.load_state_dict(state["scheduler"])
        run.fabric.strategy.precision.load_state_dict(state["precision"])
        # at the end there is nothing left to draw, and a plugin may begin a level elsewhere
        if state["loader"] is not None and run.step < run.total_steps:
            run.train_loader.sampler.epoch = run.epoch  # type: ignore[attr-defined]
            run.train_loader.load_state_dict(state["loader"])  # type: ignore[attr-defined]
        self.loss_sum = state["loss_sum"].to(run.fabric.device)
        self.loss_steps = state["loss_steps"]
        run.hooks.ssm_checkpoint_load(run=run, state=state["plugins"])
        generators = state["rng"]
        set_rng_state(generators[min(run.fabric.global_rank, len(generators) - 1)])

    def close(self, weights_metadata: Mapping[str, str] | None) -> None:
        """Close the files; with metadata given, also write the weights files."""
        if weights_metadata is not None and self.run.fabric.is_global_zero:
            run = self.run
            save_weights(run.folder / WEIGHTS, run.module, weights_metadata)
            if run.ema is not None:
                with run.ema.in_use() as averaged:
                    save_weights(run.folder / AVERAGE, averaged, weights_metadata)
        if self.file is not None:
            self.file.close()
        if self.board is not None:
            self.board.close()


def loader_state(run: Run) -> dict[str, Any]:
    """Where the training data stand within an epoch: what is drawn next."""
    state: dict[str, Any] = run.train_loader.state_dict()  # type: ignore[attr-defined]
    return state


def _gather(run: Run, value: Any) -> list[Any]:
    """`value` of every process, in order of rank."""
    if run.fabric.world_size == 1:
        return [value]
    values: list[Any] = [None] * run.fabric.world_size
    torch.distributed.all_gather_object(values, value)
    return values
