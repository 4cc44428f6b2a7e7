"""Pruning as a part of an `ssm-train` run."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from ssm_core import hookimpl
from ssm_core.errors import CheckpointError, ConfigError
from ssm_core.train.recorder import loader_state
from ssm_prune.loader import Method, PrunePlugins
from ssm_prune.options import PruneOptions
from ssm_prune.removal import Removal
from ssm_prune.report import write_report
from ssm_prune.report_run import report_quietly
from ssm_prune.rewind import load_rewind, rewind_state, save_rewind
from ssm_prune.stack import Stack
from ssm_prune.steps import RunLength

if TYPE_CHECKING:
    from torch import Tensor

    from ssm_core.train.run import Run

STATE_KEY = "prune"


class PruneExtension:
    """Takes part in one run through the hooks of ssm-core.

    Every hook that touches weights comes last among the plugins of the run, so that no other plugin
    changes a removed weight before it is saved or evaluated.
    """

    def __init__(self, method: Method, options: PruneOptions, plugins: PrunePlugins) -> None:
        self.stack = Stack(method, options, plugins, self._follow)
        self.controller = self.stack.first
        self._run: Run | None = None
        #: step -> SHA-256 of what was kept there
        self._rewinds: dict[int, str] = {}

    @hookimpl(trylast=True)
    def ssm_run_start(self, run: Run) -> None:
        removers = [one.options.units for one in self.stack.controllers if one.options.remove]
        if "blocks" in removers and run.config.optim.layer_decay:
            # a resumed run would make other groups of what is left than the optimizer had
            raise ConfigError(
                "prune.remove takes blocks out, and the learning rates of the others would depend "
                "on it: expected optim.layer_decay null, or prune.remove False"
            )
        length = RunLength(run.total_steps, run.steps_per_epoch)
        # Fabric wraps the optimizer; the wrapper's `state` goes stale when a checkpoint is loaded
        optimizer = getattr(run.optimizer, "optimizer", run.optimizer)
        self.stack.start(run.module, optimizer, length, run.config.trainer.seed)
        self._run = run

    @hookimpl(trylast=True)
    def ssm_epoch_start(self, run: Run) -> None:
        self._keep(run)  # step 0: nothing has been trained

    @hookimpl(trylast=True)
    def ssm_backward_end(self, run: Run) -> None:
        self.stack.before_optimizer_step(run.step)

    @hookimpl(trylast=True)
    def ssm_step_end(self, run: Run, metrics: dict[str, float]) -> None:
        metrics.update(self.stack.after_optimizer_step(run.step, partial(_average, run)))
        self._keep(run)

    @hookimpl(trylast=True)
    def ssm_epoch_end(self, run: Run) -> None:
        run.log(self.stack.epoch_end(run.epoch, partial(_average, run)))

    @hookimpl(trylast=True)
    def ssm_eval_end(self, run: Run, metrics: dict[str, float]) -> None:
        self.controller.metrics = {name: float(value) for name, value in metrics.items()}

    @hookimpl(trylast=True)
    def ssm_steps_done(self, run: Run) -> bool | None:
        rewind = self.controller.steps_done(run.step)
        if rewind is None:
            return None
        state = load_rewind(run.folder, self._rewinds[rewind.step])
        self.controller.begin_level(rewind, state)
        if run.ema is not None:  # the level has an average of its own
            run.ema.load_state_dict(dict(run.module.named_parameters()))
        run.train_on(rewind.step, state["loader"], state["skipped"])
        return True

    @hookimpl
    def ssm_checkpoint_save(self, run: Run, state: dict[str, Any]) -> None:
        rewinds = {str(step): digest for step, digest in self._rewinds.items()}
        state[STATE_KEY] = self.stack.state_dict() | {"rewinds": rewinds}

    @hookimpl
    def ssm_checkpoint_load(self, run: Run, state: Mapping[str, Any]) -> None:
        if STATE_KEY not in state:
            raise CheckpointError(
                f"{run.folder}: the checkpoint is of a run without pruning: resume without "
                "--prune, or start a new run"
            )
        self.stack.load_state_dict(state[STATE_KEY])
        rewinds = {int(step): digest for step, digest in state[STATE_KEY]["rewinds"].items()}
        for digest in rewinds.values():
            load_rewind(run.folder, digest)
        self._rewinds = rewinds

    @hookimpl
    def ssm_run_end(self, run: Run, error: BaseException | None) -> None:
        if self._run is None:
            return
        if run.fabric.is_global_zero:
            write_report(self.stack.controllers, run.folder / "prune_report.json", run.step)
            if error is None and run.stop_reason != "interrupted":
                report_quietly(run.folder)
        if error is None:
            self.stack.check_reached(run.step)

    def _keep(self, run: Run) -> None:
        """Write what the method may want back, after the steps that it named."""
        step = run.step
        if run.level or step in self._rewinds or step not in self.controller.points:
            return
        digest = ""
        if run.fabric.is_global_zero:
            middle = 0 < run.batches_of_epoch < run.steps_per_epoch
            optimizer = self.controller.optimizer
            state = rewind_state(run.module, optimizer, loader_state(run) if middle else None)
            digest = save_rewind(run.folder, state | {"skipped": run.skipped})
        # also makes the other processes wait until the file is there
        self._rewinds[step] = run.fabric.broadcast(digest)

    def _follow(self, removal: Removal) -> None:
        """Let all that holds tensors of the model know that it is smaller now."""
        run = self._run
        assert run is not None
        if run.ema is not None:
            run.ema.values = {
                name: removal.cut(removal.old_names[name], run.ema.values[removal.old_names[name]])
                for name, _ in run.module.named_parameters()
            }
        if run.fabric.world_size > 1:  # its wrapper holds the old parameters
            run.model = run.fabric.setup_module(run.module)


def _average(run: Run) -> Mapping[str, Tensor] | None:
    return run.ema.values if run.ema is not None else None
