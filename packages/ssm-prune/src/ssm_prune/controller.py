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
import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ssm_core.errors import CheckpointError
from ssm_core.sizes import applied_sizes
from ssm_prune.context import PruneContext
from ssm_prune.errors import NotPrunedError, ProposalError, PruneError
from ssm_prune.loader import Method, PrunePlugins
from ssm_prune.masks import MaskStore
from ssm_prune.options import PruneOptions
from ssm_prune.policy import decide
from ssm_prune.pruner import MasksChanged, Materialise, Proposal, Rewind
from ssm_prune.removal import Removal, remove_units, shrink_optimizer
from ssm_prune.schedules import make_schedule
from ssm_prune.select import target_count
from ssm_prune.steps import RunLength
from ssm_prune.unit_masks import UnitMasks, check_units

#: how far below the requested sparsity a finished run may end
TOLERANCE = 0.01


class Controller:
    """One method at work on one model.

    Attributes:
        verdicts: parameter name -> whether single weights of it may be pruned, and why (not).
        store: the masks of the parameters.
        units: the masks of the units; None where single weights are pruned.
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
        self._make_masks()
        limits = self._limits()
        self.ctx = PruneContext(
            self.options, self.schedule, self.store, limits, self.prunable, self.units
        )
        self.ctx.scores = self.plugins.scores
        self.ctx.rng.manual_seed(_seed(seed, self.method.spec.name))
        self.pruner = self.method.spec.cls(self.options)
        self.pruner.setup(self.ctx)
        self.schedule = self.ctx.schedule  # a method with a fixed pattern sets its own sparsity
        if self.units is None:
            self._check_reachable(self.ctx.limits)

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
            proposal = self._asked(self.pruner.after_optimizer_step)
            if isinstance(proposal, Proposal):
                self._carry_out(proposal)
            if self.options.remove and step >= self.schedule.end:
                self.materialise()
        self._enforce(average)
        return {**self.ctx.logged, "prune/sparsity": self.achieved}

    @torch.no_grad()
    def epoch_end(self, epoch: int, average: Mapping[str, Tensor] | None = None) -> None:
        """Let the method change masks, or take units out, at the end of an epoch.

        Args:
            epoch: epochs completed, this one counted.
            average: as in `after_optimizer_step`.
        """
        self.ctx.epoch = epoch
        if self.removals:
            return
        answer = self._asked(self.pruner.on_epoch_end)
        if isinstance(answer, Proposal):
            self._carry_out(answer)
            self._enforce(average)
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
        units, left = self.units, self.units.total - self.units.removed
        removal = remove_units(self.model, units.groups, units.keep)
        shrink_optimizer(self.optimizer, removal, before, dict(self.model.named_parameters()))
        self.removals.append(
            {
                "step": self.ctx.step,
                "left": left,
                "of": units.total,
                "rounding": units.rounding,
                "sizes": removal.sizes,
            }
        )
        self._make_masks()
        if self._on_removal is not None:
            self._on_removal(removal)
        return removal

    def _enforce(self, average: Mapping[str, Tensor] | None) -> None:
        self.store.enforce(self.parameters(), self.optimizer)
        self.store.enforce_average(average or {})

    def _asked(self, question: Callable[[PruneContext], Any]) -> Any:
        """The method's answer, that of the first process if there are several.

        What the method does wrong is reported with its name and the step.
        """
        try:
            return self.ctx.processes.of_first(question(self.ctx))
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

    def _make_masks(self) -> None:
        kind, ask = self.options.units, self.plugins.hook.ssm_prune_adapter
        self.verdicts = decide(
            self.model, self.plugins.hook.ssm_prune_policy, self.options.allow_unsafe
        )
        self.units = None if kind == "weights" else UnitMasks(self.model, kind, ask)
        if self.units is None:
            names = {name for name, verdict in self.verdicts.items() if verdict.allow}
        else:
            names = self.units.masked_parameters()
        shapes = {name: p.shape for name, p in self.model.named_parameters() if name in names}
        self.store = MaskStore(shapes)

    @property
    def achieved(self) -> float:
        """Fraction of the prunable weights, or units, that is removed."""
        if self.removals:
            last = self.removals[-1]
            return 1 - last["left"] / last["of"]
        if self.units is not None:
            return self.units.removed / max(1, self.units.total)
        return self.store.total_pruned / max(1, self.store.total)

    def check_reached(self, step: int) -> None:
        """At the end of a run, after the ramp's end: has the requested sparsity been reached?

        Raises:
            NotPrunedError: no, by more than `TOLERANCE`; lists what blocked it.
        """
        asked, slack = self.schedule.sparsity, TOLERANCE
        if self.removals:
            slack += self.removals[-1]["rounding"] / self.removals[-1]["of"]
        elif self.units is not None:
            slack += self.units.rounding / max(1, self.units.total)
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
            "method": self.method.spec.name,
            "provider": self.method.provider,
            "settings": self._settings(),
            "masks": self.store.state_dict() if self.units is None else {},
            "units": {} if self.units is None else self.units.state_dict(),
            "removals": self.removals,
            # after a removal the method is not asked again, and its tensors are of the old sizes
            "pruner": {} if self.removals else self.pruner.state_dict(),
            "rng": self.ctx.rng.get_state(),
            "history": self.history,
            "vetoes": self.vetoes,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned, after `start`.

        Raises:
            CheckpointError: saved by another method or version, or with other options.
        """
        self._check_same(state)
        self.store.load_state_dict(state["masks"])
        self.removals = list(state["removals"])
        if self.units is not None:
            self.units.load_state_dict(state["units"])
            self.store.replace(self.units.parameter_masks({}))
        if not self.removals:
            self.pruner.load_state_dict(state["pruner"])
        self.ctx.rng.set_state(state["rng"])
        self.history = list(state["history"])
        self.vetoes = list(state["vetoes"])

    def _commit(self, proposal: Proposal) -> None:
        for name, mask in proposal.masks.items():
            self._check_mask(name, mask)
        for name, keep in proposal.units.items():
            self._check_unit(name, keep)
        asked = self.plugins.hook.ssm_prune_check(proposal=proposal, ctx=self.ctx)
        problems = self.ctx.processes.of_first(
            [problem.message for answer in asked for problem in answer]
        )
        if problems:
            self.vetoes.append({"step": self.ctx.step, "problems": problems})
            return
        self.store.replace(proposal.masks)
        if self.units is not None:
            self.units.keep |= proposal.units
            self.store.replace(self.units.parameter_masks({}))
        self.ctx.processes.check_equal(self.store.digest(), f"the masks after step {self.ctx.step}")
        event = MasksChanged(
            self.ctx.step, self.ctx.target, self.store.total_pruned, self.store.total
        )
        entry = dataclasses.asdict(event)
        # one number per tensor, in order: names in each entry would fill checkpoints
        entry["removed"] = [self.store.pruned(name) for name in self.store.shapes]
        self.history.append(entry)
        self.plugins.hook.ssm_prune_masks_changed(event=event)

    def _check_unit(self, name: str, keep: Tensor) -> None:
        if self.units is None or name not in self.units.groups:
            known = "weights are pruned" if self.units is None else f"no {self.units.kind} in it"
            raise ProposalError(f"proposed units of {name!r}, but {known}")
        problem = check_units(self.units.groups[name], name, keep)
        if problem is not None:
            raise ProposalError(problem)

    def _check_mask(self, name: str, mask: Tensor) -> None:
        if self.units is not None:
            raise ProposalError(
                f"proposed a mask of single weights for {name}, expected units: prune.units is "
                f"{self.units.kind}"
            )
        if name not in self.verdicts:
            raise ProposalError(f"proposed a mask for {name!r}, but there is no such parameter")
        if name not in self.store.shapes:
            raise ProposalError(f"{name} may not be pruned: {self.verdicts[name].reason}")
        shape = self.store.shapes[name]
        if mask.dtype != torch.bool or mask.shape != shape:
            raise ProposalError(
                f"the mask of {name} is {mask.dtype} {tuple(mask.shape)}, expected torch.bool "
                f"{tuple(shape)}, True where kept"
            )
        removed = mask.numel() - int(mask.sum())
        if removed > self.ctx.limits[name]:
            raise ProposalError(
                f"the mask of {name} removes {removed} of {mask.numel()} weights, expected at most "
                f"{self.ctx.limits[name]}: {self.verdicts[name].reason}"
            )

    def _limits(self) -> dict[str, int]:
        """How many weights each parameter may lose."""
        if self.units is not None:
            self._check_units()
            return {}
        return {n: self.verdicts[n].limit(s.numel()) for n, s in self.store.shapes.items()}

    def _check_units(self) -> None:
        assert self.units is not None
        # a resumed run may have had all of them taken out but one
        if self.options.sparsity and not self.units.groups and not applied_sizes(self.model):
            raise PruneError(
                f"the model has no {self.units.kind} that could be pruned: choose another "
                "--prune.units (weights, channels, states, heads, blocks), or install an adapter "
                "for its blocks"
            )

    def _check_reachable(self, limits: Mapping[str, int]) -> None:
        wanted = target_count(self.schedule.sparsity, self.store.total)
        if self.schedule.sparsity and not limits:
            reasons = [f"{name} ({verdict.reason})" for name, verdict in self.verdicts.items()]
            raise PruneError(
                f"the model has nothing to prune: {', '.join(reasons[:4])}, ...; choose another "
                "model, or see --prune.allow_unsafe"
            )
        if wanted > sum(limits.values()):
            capped = [n for n in limits if limits[n] < self.store.shapes[n].numel()]
            raise PruneError(
                f"prune.sparsity is {self.schedule.sparsity}, expected at most "
                f"{sum(limits.values()) / self.store.total:.3f} for this model, because of "
                f"{', '.join(capped[:4])}{', ...' if len(capped) > 4 else ''} "
                f"({self.verdicts[capped[0]].reason}): ask for less, or see --prune.allow_unsafe"
            )

    def _settings(self) -> dict[str, Any]:
        """Options that must not change on resume; times as steps, whatever they were given as."""
        times = {key: getattr(self.schedule, key) for key in ("begin", "end", "every")}
        options = dataclasses.asdict(self.options) | times
        return {k: list(v) if isinstance(v, tuple) else v for k, v in options.items()}

    def _check_same(self, state: Mapping[str, Any]) -> None:
        old = (state["method"], state["provider"])
        if old != (self.method.spec.name, self.method.provider):
            raise CheckpointError(
                f"the checkpoint was pruned with {old[0]!r} of {old[1]}, this is "
                f"{self.method.spec.name!r} of {self.method.provider}: install {old[1]} to go on "
                "with that run, or start a new one"
            )
        saved, now = state["settings"], self._settings()
        for key in sorted({*now, *saved}):
            if now.get(key) != saved.get(key):
                raise CheckpointError(
                    f"the checkpoint was pruned with {key} {saved.get(key)!r}, this run has "
                    f"{now.get(key)!r}: resume with the options of the original run"
                )


def _seed(seed: int, method: str) -> int:
    """A seed of a run and a method; the same in every process (Python's `hash` is not)."""
    digest = hashlib.sha256(f"{seed}:{method}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
