"""Runs one method on one model: asks it, checks its answer, and keeps removed weights at zero.

This is the host without the training engine, so that a method can be tried in any loop:

    controller = Controller(method, options, plugins)
    controller.start(model, optimizer, length, seed)
    ... backward ...; controller.before_optimizer_step(step)
    optimizer.step(); controller.after_optimizer_step(step + 1)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from ssm_prune.context import PruneContext
from ssm_prune.errors import NotPrunedError, ProposalError, PruneError
from ssm_prune.loader import Method, PrunePlugins
from ssm_prune.masks import MaskStore
from ssm_prune.options import PruneOptions
from ssm_prune.policy import Verdict
from ssm_prune.pruner import MasksChanged, Materialise, Proposal, Rewind
from ssm_prune.removal import Removal, remove_units, shrink_optimizer
from ssm_prune.schedules import make_schedule
from ssm_prune.settings import check_settings, method_seed, saved_settings
from ssm_prune.steps import RunLength
from ssm_prune.targets import Targets
from ssm_prune.unit_masks import UnitMasks

#: how far below the requested sparsity a finished run may end
TOLERANCE = 0.01


class Controller:
    """One method at work on one model.

    Attributes:
        targets: what may be pruned, with its masks.
        removals: what was taken out of the model, in order: step, number of units and sizes.
        history: what each mask update did.
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
        self.ctx = PruneContext(self.options, self.schedule, self.targets, self.prunable)
        self.ctx.scores = self.plugins.scores
        self.ctx.rng.manual_seed(method_seed(seed, self.method.spec.name))
        self.pruner = self.method.spec.cls(self.options)
        self.pruner.setup(self.ctx)
        self.schedule = self.ctx.schedule  # a method with a fixed pattern sets its own sparsity
        self.targets.require(self.schedule.sparsity)

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
    def after_optimizer_step(self, step: int) -> dict[str, float]:
        """Let the method change masks, then enforce them; the last word of a step.

        Args:
            step: optimizer steps completed, this one counted.
        Returns:
            Numbers to log.
        Raises:
            ProposalError: the method broke a rule of the host.
        """
        self.ctx.step = step
        self.ctx.logged = {}
        if not self.removals:
            proposal = self._asked(self.pruner.after_optimizer_step)
            if isinstance(proposal, Proposal):
                self._carry_out(proposal)
            if self.options.remove and step >= self.schedule.end:
                self.materialise()
        self.store.enforce(self.parameters(), self.optimizer)
        return {**self.ctx.logged, "prune/sparsity": self.achieved}

    @torch.no_grad()
    def epoch_end(self, epoch: int) -> None:
        """Let the method change masks, or take units out, at the end of an epoch.

        Args:
            epoch: epochs completed, this one counted.
        """
        self.ctx.epoch = epoch
        if self.removals:
            return
        answer = self._asked(self.pruner.on_epoch_end)
        if isinstance(answer, Proposal):
            self._carry_out(answer)
            self.store.enforce(self.parameters(), self.optimizer)
        elif isinstance(answer, Materialise):
            self.materialise()

    @torch.no_grad()
    def steps_done(self) -> Rewind | None:
        """Ask the method whether the run is to go on from an earlier step."""
        return None if self.removals else self._asked(self.pruner.on_steps_done)

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
            {"step": self.ctx.step, "left": left, "of": total, "sizes": removal.sizes}
        )
        self.targets = self.ctx.targets = Targets(self.model, self.options, self.plugins.hook)
        if self._on_removal is not None:
            self._on_removal(removal)
        return removal

    def _asked(self, question: Callable[[PruneContext], Any]) -> Any:
        """The method's answer; what it does wrong is reported with its name and the step."""
        try:
            return question(self.ctx)
        except ProposalError as error:
            raise self._named(error) from error

    def _carry_out(self, proposal: Proposal) -> None:
        try:
            self._commit(proposal)
        except ProposalError as error:
            raise self._named(error) from error

    def _named(self, error: ProposalError) -> ProposalError:
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
        """At the end of a run, after the ramp's end: has the requested sparsity been reached?

        Raises:
            NotPrunedError: no, by more than `TOLERANCE`; lists what blocked it.
        """
        asked, slack = self.schedule.sparsity, TOLERANCE
        if self.units is not None and self.units.total:
            slack += self.units.rounding / self.units.total
        elif self.removals:
            slack = 1.0  # checked when they were taken out
        if step < self.schedule.end or self.achieved >= asked - slack:
            return
        blocked = [f"step {v['step']}: {'; '.join(v['problems'])}" for v in self.vetoes[-3:]]
        raise NotPrunedError(
            f"asked to remove {asked:.1%} of {self.store.total} prunable weights, "
            f"removed {self.achieved:.1%}: method {self.method.spec.name!r} changed masks "
            f"{len(self.history)} times"
            + (
                f", {len(self.vetoes)} proposals were stopped ({' | '.join(blocked)})"
                if blocked
                else ", no proposal was stopped"
            )
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs: tensors and JSON values."""
        return {
            **saved_settings(self.method, self.options, self.schedule),
            "masks": self.store.state_dict() if self.units is None else {},
            "units": {} if self.units is None else self.units.state_dict(),
            "removals": self.removals,
            "pruner": self.pruner.state_dict(),
            "rng": self.ctx.rng.get_state(),
            "history": self.history,
            "vetoes": self.vetoes,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned, after `start`.

        Raises:
            CheckpointError: saved by another method or version, or with other options.
        """
        check_settings(state, saved_settings(self.method, self.options, self.schedule))
        self.store.load_state_dict(state["masks"])
        self.removals = list(state["removals"])
        if self.units is not None:
            self.units.load_state_dict(state["units"])
            self.store.replace(self.units.parameter_masks({}))
        self.pruner.load_state_dict(state["pruner"])
        self.ctx.rng.set_state(state["rng"])
        self.history = list(state["history"])
        self.vetoes = list(state["vetoes"])

    def _commit(self, proposal: Proposal) -> None:
        self.targets.check(proposal)
        asked = self.plugins.hook.ssm_prune_check(proposal=proposal, ctx=self.ctx)
        problems = [problem.message for answer in asked for problem in answer]
        if problems:
            self.vetoes.append({"step": self.ctx.step, "problems": problems})
            return
        self.targets.replace(proposal)
        event = MasksChanged(
            self.ctx.step, self.ctx.target, self.store.total_pruned, self.store.total
        )
        self.history.append({k: v for k, v in dataclasses.asdict(event).items() if k != "total"})
        self.plugins.hook.ssm_prune_masks_changed(event=event)
