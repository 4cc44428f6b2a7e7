"""All the smallest weights at once, at one time of the run."""

from __future__ import annotations

from ssm_prune.context import PruneContext
from ssm_prune.pruner import Proposal, Pruner


class Magnitude(Pruner):
    """At `begin`, remove the weights of the lowest score (by default magnitude), and train on.

    One-shot pruning: what a ramp has to beat. Options: `OneShotOptions`.
    """

    def setup(self, ctx: PruneContext) -> None:
        self._score = ctx.scorer(self.options.score)

    def after_optimizer_step(self, ctx: PruneContext) -> Proposal | None:
        return ctx.prune_lowest(self._score()) if ctx.due else None
