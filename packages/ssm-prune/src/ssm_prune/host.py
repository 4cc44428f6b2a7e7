"""Pruning as a part of an `ssm-train` run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ssm_core import hookimpl
from ssm_core.errors import CheckpointError, ConfigError
from ssm_prune.controller import Controller
from ssm_prune.loader import Method, PrunePlugins
from ssm_prune.options import PruneOptions
from ssm_prune.removal import Removal
from ssm_prune.report import write_report
from ssm_prune.report_run import report_quietly
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
        self.controller = Controller(method, options, plugins, self._follow)
        self._run: Run | None = None

    @hookimpl(trylast=True)
    def ssm_run_start(self, run: Run) -> None:
        options = self.controller.options
        if options.remove and options.units == "blocks" and run.config.optim.layer_decay:
            # a resumed run would make other groups of what is left than the optimizer had
            raise ConfigError(
                "prune.remove takes blocks out, and the learning rates of the others would depend "
                "on it: expected optim.layer_decay null, or prune.remove False"
            )
        length = RunLength(run.total_steps, run.steps_per_epoch)
        # Fabric wraps the optimizer; the wrapper's `state` goes stale when a checkpoint is loaded
        optimizer = getattr(run.optimizer, "optimizer", run.optimizer)
        self.controller.start(run.module, optimizer, length, run.config.trainer.seed)
        self._run = run

    @hookimpl(trylast=True)
    def ssm_backward_end(self, run: Run) -> None:
        self.controller.before_optimizer_step(run.step)

    @hookimpl(trylast=True)
    def ssm_step_end(self, run: Run, metrics: dict[str, float]) -> None:
        metrics.update(self.controller.after_optimizer_step(run.step, _average(run)))

    @hookimpl(trylast=True)
    def ssm_epoch_end(self, run: Run) -> None:
        self.controller.epoch_end(run.epoch, _average(run))

    @hookimpl
    def ssm_checkpoint_save(self, run: Run, state: dict[str, Any]) -> None:
        state[STATE_KEY] = self.controller.state_dict()

    @hookimpl
    def ssm_checkpoint_load(self, run: Run, state: Mapping[str, Any]) -> None:
        if STATE_KEY not in state:
            raise CheckpointError(
                f"{run.folder}: the checkpoint is of a run without pruning: resume without "
                "--prune, or start a new run"
            )
        self.controller.load_state_dict(state[STATE_KEY])

    @hookimpl
    def ssm_run_end(self, run: Run, error: BaseException | None) -> None:
        if self._run is None:
            return
        if run.fabric.is_global_zero:
            write_report(self.controller, run.folder / "prune_report.json", run.step)
            if error is None and run.stop_reason != "interrupted":
                report_quietly(run.folder)
        if error is None:
            self.controller.check_reached(run.step)

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
