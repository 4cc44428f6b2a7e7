"""Runs one method on one model: asks it, checks its answer, and keeps removed weights at zero.

This is the host without the training engine, so that a method can be tried in any loop:

    controller = Controller(method, options, plugins)
    controller.start(model, optimizer, length, seed)
    ... backward ...; controller.before_optimizer_step(step)
    optimizer.step(); controller.after_optimizer_step(step + 1)

With a `torch.amp.GradScaler`, unscale the gradients before the first call, and make neither call
for a batch whose gradients are not finite: the scaler takes no step there, and none counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ssm_prune.context import PruneContext
from ssm_prune.levels import accept_level, end_level
from ssm_prune.loader import Method, PrunePlugins
from ssm_prune.options import PruneOptions
from ssm_prune.proposals import act, asked
from ssm_prune.pruned_model import PrunedModel
from ssm_prune.pruner import Rewind
from ssm_prune.reached import check_reached
from ssm_prune.removal import Removal
from ssm_prune.rewind import go_back, shuffle
from ssm_prune.saved import load_saved, method_seed, saved_state
from ssm_prune.schedules import make_schedule
from ssm_prune.steps import RunLength
from ssm_prune.taken_out import take_out
from ssm_prune.targets import Targets


class Controller(PrunedModel):
    """One method at work on one model.

    Attributes:
        history: what each mask update did, and what the method noted.
        points: steps after which the method may want the weights back (`Rewind`).
        metrics: results of the last evaluation, for the history of levels.
        vetoes: proposals that `ssm_prune_check` stopped.
        forced: what was changed by `prune.force_resume`, each time.
    """

    def __init__(
        self,
        method: Method,
        options: PruneOptions,
        plugins: PrunePlugins,
        on_removal: Callable[[Removal], None] | None = None,
    ) -> None:
        """Make the controller of one run.

        Args:
            on_removal: called after units were taken out of the model and the optimizer, for what
                else holds its tensors.
        """
        super().__init__()
        self.on_removal = on_removal
        self.method = method
        self.options = options
        self.plugins = plugins
        self.history: list[dict[str, Any]] = []
        self.vetoes: list[dict[str, Any]] = []
        self.forced: list[dict[str, Any]] = []
        self.metrics: dict[str, float] = {}

    @torch.no_grad()
    def start(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, length: RunLength, seed: int
    ) -> None:
        """Decide what may be pruned and set the method up.

        Raises:
            ConfigError: times, ramp or patterns that do not fit the run.
            PruneError: the policy leaves too few weights for the requested sparsity.
        """
        self.model, self.optimizer = model, optimizer
        self.schedule = make_schedule(self.options, length, self.plugins.ramps)
        self.targets = Targets(model, self.options, self.plugins.hook)
        self.ctx = PruneContext(self.options, self.schedule, self.targets, length, self.prunable)
        self.ctx.scores = self.plugins.scores
        self.ctx.rng.manual_seed(method_seed(seed, self.method.spec.name))
        self.pruner = self.method.spec.cls(self.options)
        self.pruner.setup(self.ctx)
        self.schedule = self.ctx.schedule  # a method with a fixed pattern sets its own sparsity
        self.targets.require(self.schedule.sparsity)
        self.points = frozenset(self.pruner.rewind_points(self.ctx))

    @torch.no_grad()
    def before_optimizer_step(self, step: int) -> None:
        """Show the method the dense gradients, then zero those of removed weights.

        Args:
            step: optimizer steps completed, the coming one not counted.
        """
        self.show_gradients(step)
        self.zero_gradients()

    @torch.no_grad()
    def show_gradients(self, step: int) -> None:
        """Show the method the dense gradients; part of `before_optimizer_step`."""
        self.ctx.step = step
        if not self.removals:
            self.pruner.before_optimizer_step(self.ctx)

    @torch.no_grad()
    def after_optimizer_step(
        self, step: int, average: Mapping[str, Tensor] | None = None
    ) -> dict[str, float]:
        """Let the method change masks, then enforce them; the last word of a step.

        Args:
            step: optimizer steps completed, this one counted.
            average: a moving average of the weights, by parameter name, that has taken in this
                step; removed weights become zero in it too.
        Returns:
            Numbers to log.
        Raises:
            ProposalError: the method broke a rule of the host.
            PruneError: processes have different masks.
        """
        self.ctx.step = step
        self.ctx.logged = {}
        if not self.removals:
            act(self, asked(self, self.pruner.after_optimizer_step))
        # nothing masked: nothing to take out, and `check_reached` says so
        ended = step >= self.schedule.end and self.targets.removed > 0
        if self.options.remove and ended and not self.removals:
            take_out(self)
        self.enforce(average)
        return {**self.ctx.logged, "prune/sparsity": self.achieved}

    @torch.no_grad()
    def epoch_end(
        self, epoch: int, average: Mapping[str, Tensor] | None = None
    ) -> dict[str, float]:
        """Let the method change masks, or take units out, at the end of an epoch.

        Args:
            epoch: epochs completed, this one counted.
            average: as in `after_optimizer_step`.
        Returns:
            Numbers to log.
        """
        self.ctx.epoch = epoch
        self.ctx.logged = {}
        if not self.removals:
            answer = asked(self, self.pruner.on_epoch_end)
            act(self, answer)
            if answer is not None:
                self.enforce(average)
        return self.ctx.logged

    @torch.no_grad()
    def steps_done(self, step: int) -> Rewind | None:
        """Ask the method whether the run is to go on from an earlier step, and take its masks.

        After an answer other than None, call `begin_level`; nothing may be saved in between.

        Args:
            step: optimizer steps completed: all of the level.
        Raises:
            ProposalError: the method broke a rule of the host.
            NotPrunedError: a check of a plugin stopped the masks of the level.
        """
        self.ctx.step = step
        if self.removals:
            return None
        rewind: Rewind | None = asked(self, self.pruner.on_steps_done)
        end_level(self)
        if rewind is not None:
            accept_level(self, rewind)
        return rewind

    @torch.no_grad()
    def begin_level(self, rewind: Rewind, state: Mapping[str, Any]) -> None:
        """Give model and optimizer what `rewind` asks for, under the masks.

        Args:
            state: of the step to go back to (`ssm_prune.rewind`).
        """
        go_back(self.model, self.optimizer, state, rewind)
        if rewind.weights == "shuffled":
            shuffle(self.parameters(), self.ctx.rng)
        self.ctx.level += 1
        self.enforce(None)

    def check_reached(self, step: int) -> None:
        """At the end of a run: has the sparsity been reached that the method promised?

        Raises:
            NotPrunedError: no; lists what blocked it.
        """
        self.ctx.step = step
        check_reached(self)

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs: tensors and JSON values."""
        return saved_state(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned, after `start`.

        Raises:
            CheckpointError: saved by another method or version, or with other options.
        """
        load_saved(self, state)
