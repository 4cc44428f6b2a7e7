"""Pruning by what the gradient says about a weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ssm_core.errors import ConfigError
from ssm_prune.context import PruneContext
from ssm_prune.distributed import local, local_part, whole
from ssm_prune.options import PruneOptions
from ssm_prune.pruner import Proposal, Pruner

#: what one step says about the weights, from their values and gradients
_SIGNALS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "taylor": lambda w, g: (w * g).abs(),
    "grad": lambda w, g: g.abs(),
    "fisher": lambda w, g: (w * g).square(),
    "snip": lambda w, g: w * g,
    "movement": lambda w, g: -w * g,
}
#: criteria that take the plain sum of the steps and not a running mean
_SUMS = ("snip", "movement")


@dataclass(frozen=True)
class GradientOptions(PruneOptions):
    """Options of gradient, besides those of every method.

    Args:
        criterion: taylor (recommended), grad, fisher, snip or movement.
        beta: how much of the running mean each step keeps (taylor, grad, fisher).
        snip_steps: how many steps snip adds up before it prunes; more are like a larger batch.
        begin: time at which the ramp leaves zero; auto: 5%, for snip right after `snip_steps`.
        end: time of the last mask update; auto: 75%; snip prunes once, at `begin`.
        ramp: shape of the way to `sparsity`; auto: cosine, for movement cubic.
    """

    criterion: Literal["taylor", "grad", "fisher", "snip", "movement"] = "taylor"
    beta: float = 0.9
    snip_steps: int = 1
    begin: int | str = "auto"
    end: int | str = "auto"
    ramp: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.beta < 1:
            raise ConfigError(f"prune.beta is {self.beta!r}, expected from 0 to below 1")
        if self.snip_steps < 1:
            raise ConfigError(f"prune.snip_steps is {self.snip_steps}, expected 1 or more")
        snip = self.criterion == "snip"
        self._fill("begin", f"{self.snip_steps}it" if snip else "5%")
        self._fill("end", self.begin if snip else "75%")
        self._fill("ramp", "cubic" if self.criterion == "movement" else "cosine")
        if snip and (self.end != self.begin or self.every is not None):
            raise ConfigError(
                "prune.end and prune.every have no meaning for snip, which prunes once, at "
                f"prune.begin ({self.begin}): leave them out, or choose another prune.criterion"
            )

    def _fill(self, key: str, value: int | str) -> None:
        if getattr(self, key) == "auto":
            object.__setattr__(self, key, value)


class Gradient(Pruner):
    """Removes the weights of the lowest score, which gathers over the steps before each update.

    w is the weight and g its complete gradient at a step; E is a running mean,
    E <- beta E + (1 - beta) new, not corrected for its start at 0: that is one factor for all
    weights and changes no order.

    - `taylor`: E|w g|, the change of the loss without the weight, to first order (Molchanov et al.
      2017). Recommended.
    - `grad`: E|g|. Taken at its word it removes weights that have converged, because their gradient
      is flat, whatever their size.
    - `fisher`: E(w g)^2, the same change to second order with the empirical Fisher information for
      the curvature, up to a factor (Theis et al. 2018).
    - `snip`: |sum of w g| over `snip_steps` steps, once (Lee et al. 2019). There all gradients are
      taken at the first weights; here the weights train meanwhile.
    - `movement`: -sum of w g over all steps; removes what moves towards 0 (Sanh et al. 2020).
      There removed weights go on learning and may come back; here they are 0, and stay removed.

    A missing gradient counts as 0. Memory: one float32 (for float64 weights: float64) number per
    prunable weight until `end`. Time: one pass over them per step.
    """

    def setup(self, ctx: PruneContext) -> None:
        if self.options.criterion == "snip" and ctx.schedule.end < self.options.snip_steps:
            raise ConfigError(
                f"prune.begin is {self.options.begin} = step {ctx.schedule.end}, expected at least "
                f"prune.snip_steps ({self.options.snip_steps}), whose gradients are added up before"
            )
        self._scores = {
            name: torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32))
            for name, p in ctx.prunable()
        }

    def before_optimizer_step(self, ctx: PruneContext) -> None:
        if not self._first(ctx) <= ctx.step < ctx.schedule.end:
            return
        criterion, beta = self.options.criterion, self.options.beta
        for name, weight in ctx.prunable():
            score = self._scores[name]
            if criterion not in _SUMS:
                score.mul_(beta)
            if weight.grad is None:
                continue
            signal = _SIGNALS[criterion](weight.to(score.dtype), weight.grad.to(score.dtype))
            score.add_(signal, alpha=1.0 if criterion in _SUMS else 1 - beta)

    def after_optimizer_step(self, ctx: PruneContext) -> Proposal | None:
        if not ctx.due:
            return None
        signed = self.options.criterion == "movement"
        proposal = ctx.prune_lowest(
            {name: score if signed else score.abs() for name, score in self._scores.items()}
        )
        if ctx.step >= ctx.schedule.end:  # nothing comes after: give the memory back
            self._scores = {}
        return proposal

    def state_dict(self) -> dict[str, Any]:
        return {"scores": {name: whole(score) for name, score in self._scores.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._scores = {name: self._scores[name] for name in state["scores"]}
        for name, score in self._scores.items():
            local(score).copy_(local_part(state["scores"][name].to(score.device), score))

    def _first(self, ctx: PruneContext) -> int:
        """The first step whose gradient counts."""
        snip = self.options.criterion == "snip"
        return ctx.schedule.end - self.options.snip_steps if snip else 0
