"""Early-bird tickets: stop looking for a mask as soon as it no longer changes.

Source: You et al. 2020, arXiv:1909.11957. There masks are of channels, by the gains of batch
normalisation; state space blocks have none, so units are ranked by the mean magnitude of their
weights relative to their group.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch

from ssm_core.errors import ConfigError
from ssm_prune.context import PruneContext
from ssm_prune.errors import PruneError
from ssm_prune.mask_distance import MASKS, Distance, MaskDistances, Rule, exact, largest_distance
from ssm_prune.masks import pack_bits
from ssm_prune.options import PruneOptions
from ssm_prune.pruner import Materialise, Proposal, Pruner
from ssm_prune.steps import parse_time


@dataclass(frozen=True)
class EarlyBirdOptions(PruneOptions):
    """Options of early-bird tickets.

    Args:
        remove: with units, take the ticket out of the model when it has emerged and train on with
            an ordinary smaller one; otherwise it stays masked.
        end: time by which the ticket must have emerged.
        every: time between candidate masks; the first is taken after it, never of untrained
            weights.
        epsilon: largest distance between masks that count as alike.
        distance: share of weights or units in which two masks differ (hamming); that share of the
            largest one possible, 2 min(p, 1 - p) (normalised); or share of those in either that are
            not in both (jaccard).
        rule: the newest mask is within `epsilon` of the four before it (window), or five successive
            distances were below `epsilon` (consecutive).
        on_miss: when no ticket has emerged by `end`: end the run with an error (fail), remove the
            candidate of that time (prune), or go on looking (continue).
    """

    sparsity: float = 0.5
    every: int | str | None = "1ep"
    epsilon: float = 0.1
    distance: Distance = "hamming"
    rule: Rule = "window"
    on_miss: Literal["fail", "prune", "continue"] = "fail"
    # all of `sparsity` at once
    begin: int | str = field(init=False, default=0)
    ramp: str = field(init=False, default="cosine")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.epsilon < 1:
            raise ConfigError(
                f"prune.epsilon is {self.epsilon!r}, expected a number between 0 and 1"
            )
        most = largest_distance(self.sparsity)
        if self.distance == "hamming" and 0 < most <= exact(self.epsilon):
            raise ConfigError(
                f"prune.distance is hamming with prune.sparsity {self.sparsity}, expected "
                f"normalised or jaccard: two such masks differ in at most {float(most):.3g} of "
                f"their places, so that every mask would be within epsilon {self.epsilon}"
            )


class EarlyBird(Pruner):
    """Look at the mask that would be pruned now and then; remove it once it has settled."""

    follows_schedule: ClassVar[bool] = False
    options: EarlyBirdOptions

    def setup(self, ctx: PruneContext) -> None:
        options, schedule = self.options, ctx.schedule
        self.distances = MaskDistances(
            ctx.total, options.sparsity, options.epsilon, options.distance, options.rule
        )
        self.drawn = False
        every = "1ep" if options.every is None else options.every
        self.every = parse_time(every, ctx.length, "prune.every")
        first = self.every * (MASKS + (options.rule == "consecutive"))
        if options.sparsity and first > schedule.end:
            raise ConfigError(
                f"prune.end is {options.end} = step {schedule.end}, expected {first} or more: no "
                f"ticket can emerge earlier with prune.every {every} (or choose that smaller)"
            )

    def after_optimizer_step(self, ctx: PruneContext) -> Proposal | Materialise | None:
        due = ctx.step % self.every == 0
        missed = ctx.step == ctx.schedule.end
        if self.drawn or not self.options.sparsity or not (due or missed):
            return None
        scores = {name: weight.abs() for name, weight in ctx.prunable()}
        candidate = ctx.prune_lowest(scores, self.options.sparsity)
        if due:
            self._compare(ctx, candidate)
        if self.distances.settled:
            return self._draw(candidate)
        return self._miss(ctx, candidate) if missed else None

    def promised(self, ctx: PruneContext) -> float:
        return self.options.sparsity if self.drawn else 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"distances": self.distances.state_dict(), "drawn": self.drawn}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.distances.load_state_dict(state["distances"])
        self.drawn = bool(state["drawn"])

    def _compare(self, ctx: PruneContext, candidate: Proposal) -> None:
        masks = candidate.units or candidate.masks
        flat = torch.cat([masks[name].flatten().cpu() for name in sorted(masks)])
        found = self.distances.take(pack_bits(~flat))
        ctx.note({"distances": found})
        if found:
            ctx.log("mask_distance", max(found))

    def _draw(self, candidate: Proposal) -> Proposal | Materialise:
        self.drawn = True
        return Materialise(candidate) if self.options.remove else candidate

    def _miss(self, ctx: PruneContext, candidate: Proposal) -> Proposal | Materialise | None:
        if self.options.on_miss == "continue":
            return None
        if self.options.on_miss == "prune":
            return self._draw(candidate)
        raise PruneError(
            f"no early-bird ticket has emerged by prune.end (step {ctx.step}): the masks still "
            f"differ by more than prune.epsilon {self.options.epsilon}; train longer, choose a "
            "larger epsilon, or see --prune.on_miss prune and continue"
        )
