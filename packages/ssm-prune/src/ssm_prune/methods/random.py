"""Weights drawn by lot: what every other method has to beat."""

from __future__ import annotations

from ssm_prune.context import PruneContext
from ssm_prune.pruner import Proposal, Pruner


class Random(Pruner):
    """At each update, remove weights at random; removed weights stay removed.

    The lot is drawn from the run's generator, so that a run can be repeated and resumed. It has the
    schedule of `dynamic-cosine`, for which it is the control. Options: `RampedOptions`.
    """

    def setup(self, ctx: PruneContext) -> None:
        self._score = ctx.scorer("random")

    def after_optimizer_step(self, ctx: PruneContext) -> Proposal | None:
        return ctx.prune_lowest(self._score()) if ctx.due else None
