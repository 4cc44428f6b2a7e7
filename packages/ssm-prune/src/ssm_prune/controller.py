"""Runs one method on one model: asks it, checks its answer, and keeps removed weights at zero.

This is the host without the training engine, so that a method can be tried in any loop:

    controller = Controller(method, options, plugins)
    controller.start(model, optimizer, length, seed)
    ... backward ...; controller.before_optimizer_step(step)
    optimizer.step(); controller.after_optimizer_step(step + 1)
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ssm_core.errors import CheckpointError
from ssm_prune.context import PruneContext
from ssm_prune.errors import NotPrunedError, ProposalError, PruneError
from ssm_prune.loader import Method, PrunePlugins
from ssm_prune.masks import MaskStore
from ssm_prune.options import PruneOptions
from ssm_prune.policy import decide
from ssm_prune.pruner import MasksChanged, Proposal
from ssm_prune.schedules import make_schedule
from ssm_prune.select import target_count
from ssm_prune.steps import RunLength

#: how far below the requested sparsity a finished run may end
TOLERANCE = 0.01


class Controller:
    """One method at work on one model.

    Attributes:
        verdicts: parameter name -> whether it may be pruned, and why (not).
        store: the masks.
        history: what each mask update did.
        vetoes: proposals that `ssm_prune_check` stopped.
    """

    def __init__(self, method: Method, options: PruneOptions, plugins: PrunePlugins) -> None:
        self.method = method
        self.options = options
        self.plugins = plugins
        self.history: list[dict[str, Any]] = []
        self.vetoes: list[dict[str, Any]] = []

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
        self.verdicts = decide(model, self.plugins.hook.ssm_prune_policy, self.options.allow_unsafe)
        self.schedule = make_schedule(self.options, length, self.plugins.ramps)
        self.store = MaskStore({name: p.shape for name, p in self.parameters()})
        limits = {n: self.verdicts[n].limit(s.numel()) for n, s in self.store.shapes.items()}
        self._check_reachable(limits)
        self.ctx = PruneContext(self.options, self.schedule, self.store, limits, self.parameters)
        self.ctx.rng.manual_seed(_seed(seed, self.method.spec.name))
        self.pruner = self.method.spec.cls(self.options)
        self.pruner.setup(self.ctx)

    def parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """(name, parameter) of everything that may be pruned."""
        for name, parameter in self.model.named_parameters():
            if self.verdicts[name].allow:
                yield name, parameter

    @torch.no_grad()
    def before_optimizer_step(self, step: int) -> None:
        """Show the method the dense gradients, then zero those of removed weights.

        Args:
            step: optimizer steps completed, the coming one not counted.
        """
        self.ctx.step = step
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
        try:
            proposal = self.pruner.after_optimizer_step(self.ctx)
            if proposal is not None:
                self._commit(proposal)
        except ProposalError as error:
            raise ProposalError(
                f"pruning method {self.method.spec.name!r} of {self.method.provider}, step "
                f"{step}: {error}"
            ) from error
        self.store.enforce(self.parameters(), self.optimizer)
        return {**self.ctx.logged, "prune/sparsity": self.achieved}

    @property
    def achieved(self) -> float:
        """Fraction of the prunable weights that is removed."""
        return self.store.total_pruned / max(1, self.store.total)

    def check_reached(self, step: int) -> None:
        """At the end of a run, after the ramp's end: has the requested sparsity been reached?

        Raises:
            NotPrunedError: no, by more than `TOLERANCE`; lists what blocked it.
        """
        if step < self.schedule.end or self.achieved >= self.options.sparsity - TOLERANCE:
            return
        blocked = [f"step {v['step']}: {'; '.join(v['problems'])}" for v in self.vetoes[-3:]]
        raise NotPrunedError(
            f"asked to remove {self.options.sparsity:.1%} of {self.store.total} prunable weights, "
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
            "masks": self.store.state_dict(),
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
        self._check_same(state)
        self.store.load_state_dict(state["masks"])
        self.pruner.load_state_dict(state["pruner"])
        self.ctx.rng.set_state(state["rng"])
        self.history = list(state["history"])
        self.vetoes = list(state["vetoes"])

    def _commit(self, proposal: Proposal) -> None:
        for name, mask in proposal.masks.items():
            self._check_mask(name, mask)
        asked = self.plugins.hook.ssm_prune_check(proposal=proposal, ctx=self.ctx)
        problems = [problem.message for answer in asked for problem in answer]
        if problems:
            self.vetoes.append({"step": self.ctx.step, "problems": problems})
            return
        self.store.replace(proposal.masks)
        event = MasksChanged(
            self.ctx.step, self.ctx.target, self.store.total_pruned, self.store.total
        )
        entry = {k: v for k, v in dataclasses.asdict(event).items() if k != "total"}
        # one number per prunable tensor, in order: names in each entry would fill checkpoints
        entry["removed"] = [self.store.pruned(name) for name in self.store.shapes]
        self.history.append(entry)
        self.plugins.hook.ssm_prune_masks_changed(event=event)

    def _check_mask(self, name: str, mask: Tensor) -> None:
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

    def _check_reachable(self, limits: Mapping[str, int]) -> None:
        wanted = target_count(self.options.sparsity, self.store.total)
        if self.options.sparsity and not limits:
            reasons = [f"{name} ({verdict.reason})" for name, verdict in self.verdicts.items()]
            raise PruneError(
                f"the model has nothing to prune: {', '.join(reasons[:4])}, ...; choose another "
                "model, or see --prune.allow_unsafe"
            )
        if wanted > sum(limits.values()):
            capped = [n for n in limits if limits[n] < self.store.shapes[n].numel()]
            raise PruneError(
                f"prune.sparsity is {self.options.sparsity}, expected at most "
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
