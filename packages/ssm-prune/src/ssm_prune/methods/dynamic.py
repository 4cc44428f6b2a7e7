"""Pruning of the smallest weights along a ramp, while the rest goes on learning."""

from __future__ import annotations

from ssm_prune.context import PruneContext
from ssm_prune.pruner import Proposal, Pruner


class DynamicCosine(Pruner):
    """At each update, remove the weights of smallest magnitude; removed weights stay removed.

    Gradual magnitude pruning (Zhu and Gupta 2017) with a cosine ramp.
    """

    def after_optimizer_step(self, ctx: PruneContext) -> Proposal | None:
        if not ctx.due:
            return None
        return ctx.prune_lowest({name: weight.abs() for name, weight in ctx.prunable()})
