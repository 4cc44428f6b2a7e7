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

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ssm_prune.context import PruneContext
from ssm_prune.errors import ProposalError, PruneError
from ssm_prune.levels import accept_level, end_level
from ssm_prune.loader import Method, PrunePlugins
from ssm_prune.masks import MaskStore
from ssm_prune.options import PruneOptions
from ssm_prune.policy import Verdict
from ssm_prune.pruner import MasksChanged, Materialise, Proposal, Rewind
from ssm_prune.reached import check_reached
from ssm_prune.removal import Removal, remove_units, shrink_optimizer
from ssm_prune.rewind import go_back, shuffle
from ssm_prune.saved import load_saved, method_seed, saved_state
from ssm_prune.schedules import make_schedule
from ssm_prune.steps import RunLength
from ssm_prune.targets import Targets
from ssm_prune.unit_masks import UnitMasks


class Controller:
    """One method at work on one model.

    Attributes:
        targets: what may be pruned, with its masks.
        removals: what was taken out of the model, in order: step, number of units and sizes.
        history: what each mask update did, and what the method noted.
        points: steps after which the method may want the weights back (`Rewind`).
        metrics: results of the last evaluation, for the history of levels.
        vetoes: proposals that `ssm_prune_check` stopped.
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
        self._on_removal = on_removal
        self.method = method
        self.options = options
        self.plugins = plugins
        self.history: list[dict[str, Any]] = []
        self.vetoes: list[dict[str, Any]] = []
        self.removals: list[dict[str, Any]] = []
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

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """Parameter name -> whether single weights of it may be pruned, and why (not)."""
        return self.targets.verdicts

    @property
    def store(self) -> MaskStore:
        """The masks of the parameters."""
        return self.targets.store

    @property
    def units(self) -> UnitMasks | None:
        """The masks of the units; None where single weights are pruned."""
        return self.targets.units

    def parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """(name, parameter) of everything that may have zeros under a mask."""
        for name, parameter in self.model.named_parameters():
            if name in self.store.shapes:
                yield name, parameter

    def prunable(self) -> Iterator[tuple[str, nn.Parameter]]:
        """(name, parameter) of everything that a method has to score."""
        if self.units is None:
            yield from self.parameters()
            return
        scored = self.units.scored_parameters()
        for name, parameter in self.model.named_parameters():
            if name in scored:
                yield name, parameter

    @torch.no_grad()
    def before_optimizer_step(self, step: int) -> None:
        """Show the method the dense gradients, then zero those of removed weights.

        Args:
            step: optimizer steps completed, the coming one not counted.
        """
        self.ctx.step = step
        if not self.removals:
            self.pruner.before_optimizer_step(self.ctx)
        self.store.zero_gradients(self.parameters())

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
            self._act(self.asked(self.pruner.after_optimizer_step))
        # nothing masked: nothing to take out, and `check_reached` says so
        ended = step >= self.schedule.end and self.targets.removed > 0
        if self.options.remove and ended and not self.removals:
            self.materialise()
        self._enforce(average)
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
            answer = self.asked(self.pruner.on_epoch_end)
            self._act(answer)
            if answer is not None:
                self._enforce(average)
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
        rewind: Rewind | None = self.asked(self.pruner.on_steps_done)
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
        self._enforce(None)

    @torch.no_grad()
    def materialise(self) -> Removal:
        """Take the masked units out of the model and of the optimizer; the method rests then.

        Raises:
            PruneError: single weights are pruned.
        """
        if self.units is None:
            raise PruneError(
                f"method {self.method.spec.name!r} wants masked weights taken out of the model, "
                "expected whole units: add --prune.units channels (states, heads, blocks)"
            )
        before = dict(self.model.named_parameters())
        left, total = self.targets.total - self.targets.removed, self.targets.total
        removal = remove_units(self.model, self.units.groups, self.units.keep)
        shrink_optimizer(self.optimizer, removal, before, dict(self.model.named_parameters()))
        self.removals.append(
            {
                "step": self.ctx.step,
                "left": left,
                "of": total,
                "rounding": self.units.rounding,
                "asked": self.pruner.promised(self.ctx),
                "sizes": removal.sizes,
            }
        )
        self.targets = self.ctx.targets = Targets(self.model, self.options, self.plugins.hook)
        if self._on_removal is not None:
            self._on_removal(removal)
        return removal

    def _enforce(self, average: Mapping[str, Tensor] | None) -> None:
        self.store.enforce(self.parameters(), self.optimizer)
        self.store.enforce_average(average or {})

    def asked(self, question: Callable[[PruneContext], Any]) -> Any:
        """The method's answer, that of the first process if there are several.

        What the method does wrong is reported with its name and the step.
        """
        self.ctx.notes.clear()
        try:
            answer = self.ctx.processes.of_first(question(self.ctx))
        except ProposalError as error:
            raise self.named(error) from error
        for values in self.ctx.notes:
            self.note(values)
        return answer

    def _act(self, answer: Proposal | Materialise | None) -> None:
        proposal = answer.proposal if isinstance(answer, Materialise) else answer
        done = proposal is None or self.carry_out(proposal)
        if isinstance(answer, Materialise) and done:
            self.materialise()

    def named(self, error: ProposalError) -> ProposalError:
        """The error with the method and the step in front."""
        return ProposalError(
            f"pruning method {self.method.spec.name!r} of {self.method.provider}, step "
            f"{self.ctx.step}: {error}"
        )

    @property
    def achieved(self) -> float:
        """Fraction of the prunable weights, or units, that is removed."""
        if self.removals:
            last = self.removals[-1]
            return 1 - last["left"] / last["of"]
        return self.targets.removed / max(1, self.targets.total)

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

    def carry_out(self, proposal: Proposal) -> bool:
        """Take over new masks; False if a check of a plugin stopped them."""
        try:
            self.targets.check(proposal)
        except ProposalError as error:
            raise self.named(error) from error
        asked = self.plugins.hook.ssm_prune_check(proposal=proposal, ctx=self.ctx)
        problems = self.ctx.processes.of_first(
            [problem.message for answer in asked for problem in answer]
        )
        if problems:
            self.vetoes.append({"step": self.ctx.step, "problems": problems})
            return False
        self.targets.replace(proposal)
        self.ctx.processes.check_equal(self.store.digest(), f"the masks after step {self.ctx.step}")
        target = self.ctx.target if proposal.target is None else proposal.target
        event = MasksChanged(self.ctx.step, target, self.store.total_pruned, self.store.total)
        self._record(event, {})
        self.plugins.hook.ssm_prune_masks_changed(event=event)
        return True

    def note(self, values: Mapping[str, Any]) -> None:
        """Put values into the history, beside what the masks are now."""
        promised, store = self.pruner.promised(self.ctx), self.store
        event = MasksChanged(self.ctx.step, promised, store.total_pruned, store.total)
        self._record(event, values)

    def _record(self, event: MasksChanged, values: Mapping[str, Any]) -> None:
        entry = dataclasses.asdict(event)
        # one number per tensor, in order: names in each entry would fill checkpoints
        entry["removed"] = [self.store.pruned(name) for name in self.store.shapes]
        self.history.append({**entry, **values})
