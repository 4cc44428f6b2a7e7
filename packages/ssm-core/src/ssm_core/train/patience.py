"""Early stopping: a run ends when its monitored metric has not been better for a while.

Source: Prechelt 1998, "Early stopping - but when?".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssm_core.hookspecs import hookimpl
from ssm_core.train.run import Run

KEY = "patience"


class EarlyStopping:
    """Counts evaluations without a better monitor; the count is in the checkpoints.

    A level of a run (`Run.train_on`) begins a count of its own.

    Args:
        patience: evaluations without a better value before the run stops.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.level = 0
        self.best: float | None = None
        self.worse = 0

    @hookimpl
    def ssm_eval_end(self, run: Run, metrics: Mapping[str, float]) -> None:
        """Count the evaluation: here and not where a stop is asked for, which one plugin ends."""
        if run.level != self.level:
            self.level, self.best, self.worse = run.level, None, 0
        value = metrics[f"eval/{run.task.monitor}"]
        if value == value and (self.best is None or self._is_better(run, value)):  # NaN is worse
            self.best, self.worse = value, 0
        else:
            self.worse += 1

    @hookimpl
    def ssm_should_stop(self, run: Run) -> str | None:
        """Say that the patience is used up."""
        if self.worse < self.patience:
            return None
        return (
            f"no better {run.task.monitor} in {self.worse} evaluations (trainer.patience), "
            f"best {'-' if self.best is None else f'{self.best:.4g}'}"
        )

    @hookimpl
    def ssm_checkpoint_save(self, state: dict[str, Any]) -> None:
        """Keep the count."""
        state[KEY] = {"level": self.level, "best": self.best, "worse": self.worse}

    @hookimpl
    def ssm_checkpoint_load(self, run: Run, state: Mapping[str, Any]) -> None:
        """Go on with the count; a run that was killed after its last evaluation stays stopped."""
        saved = state.get(KEY)
        if saved is not None:  # the run may have had no patience before
            self.level, self.best, self.worse = saved["level"], saved["best"], saved["worse"]
            run.stop_reason = self.ssm_should_stop(run)

    def _is_better(self, run: Run, value: float) -> bool:
        assert self.best is not None
        return value > self.best if run.task.higher_is_better else value < self.best
