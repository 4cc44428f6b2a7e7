"""Decayed Taylor: keep the weights whose running mean of |w g| is largest.

|w g| estimates how much the loss would change without the weight, to first order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ssm_prune import MethodSpec, Proposal, PruneContext, PruneOptions, Pruner, hookimpl


@dataclass(frozen=True)
class DecayedTaylorOptions(PruneOptions):
    """Options of decayed-taylor, besides those of every method.

    Args:
        beta: how much of the running mean each step keeps, from 0 to below 1.
    """

    beta: float = 0.9


class DecayedTaylor(Pruner):
    """Removes the weights with the lowest running mean of |w g|; the host's ramp says how many."""

    def setup(self, ctx: PruneContext) -> None:
        self.mean = {n: torch.zeros_like(p, dtype=torch.float32) for n, p in ctx.prunable()}

    def before_optimizer_step(self, ctx: PruneContext) -> None:
        beta = self.options.beta
        for name, weight in ctx.prunable():
            if weight.grad is not None:
                gain = (weight * weight.grad).abs().float()
                self.mean[name].mul_(beta).add_(gain, alpha=1 - beta)

    def after_optimizer_step(self, ctx: PruneContext) -> Proposal | None:
        return ctx.prune_lowest(self.mean) if ctx.due else None

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self.mean}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, mean in state["mean"].items():
            self.mean[name].copy_(mean)


@hookimpl
def ssm_prune_methods() -> list[MethodSpec]:
    return [
        MethodSpec(
            "decayed-taylor",
            DecayedTaylor,
            "remove the weights with the lowest running mean of |w g|",
            DecayedTaylorOptions,
        )
    ]
