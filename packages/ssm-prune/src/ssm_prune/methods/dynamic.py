"""Pruning along a ramp, while the rest goes on learning; what is removed may come back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ssm_core.errors import ConfigError
from ssm_prune.context import PruneContext
from ssm_prune.distributed import whole
from ssm_prune.options import PruneOptions, RampedOptions
from ssm_prune.pruner import Proposal, Pruner
from ssm_prune.select import lowest


@dataclass(frozen=True)
class DynamicOptions(RampedOptions):
    """Options of dynamic-cosine, besides those of every method.

    Args:
        score: what a weight is worth: magnitude, random, or one that a plugin offers.
        regrow: none: removed weights stay removed; gradient: at each update, some weights of each
            tensor change places with removed ones of large gradient.
        regrow_fraction: fraction of the live weights of a tensor that change places at first.
        regrow_anneal: cosine: that fraction falls to 0 at `end`, along half a cosine wave of its
            own; constant: it stays.
    """

    score: str = "magnitude"
    regrow: Literal["none", "gradient"] = "none"
    regrow_fraction: float = 0.3
    regrow_anneal: Literal["cosine", "constant"] = "cosine"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.regrow_fraction <= 1:
            raise ConfigError(
                f"prune.regrow_fraction is {self.regrow_fraction!r}, expected more than 0 and at "
                "most 1; to have none, set prune.regrow to none"
            )
        if self.regrow != "none" and self.units != "weights":
            raise ConfigError(
                f"prune.regrow is {self.regrow} with prune.units {self.units}, expected none: only "
                "single weights can come back"
            )


class DynamicCosine(Pruner):
    """At each update, remove the weights of the lowest score, as many as the ramp says.

    With `regrow: none` this is gradual magnitude pruning (Zhu and Gupta 2017) with a cosine ramp.

    With `regrow: gradient` each update then drops a further fraction p of the live weights of each
    tensor, those of the lowest score, and brings back as many removed ones, those of the largest
    |g|; g is the gradient of the step just done, which removed weights have too. They come back as
    0 with empty optimizer slots. p = regrow_fraction / 2 (1 + cos(pi u)), u from 0 at `begin` to 1
    at `end`. This is GraNet (Liu et al. 2021), and with `initial_sparsity` = `sparsity` RigL (Evci
    et al. 2020). Unlike there, u starts at `begin`, and only what was removed before this update
    comes back, so that exactly p of the weights change places if that many are removed.

    Cost: nothing between updates; at an update one sort-free selection, and with regrowth a copy
    of the gradients.
    """

    def __init__(self, options: PruneOptions) -> None:
        super().__init__(options)
        # a method derived from this one may have options without these: then their defaults hold
        self._own = options if isinstance(options, DynamicOptions) else DynamicOptions()

    def setup(self, ctx: PruneContext) -> None:
        self._score = ctx.scorer(self._own.score)
        self._gradients: dict[str, Tensor] = {}

    def before_optimizer_step(self, ctx: PruneContext) -> None:
        if self._own.regrow == "gradient" and ctx.schedule.due(ctx.step + 1):
            self._gradients = {
                name: whole(parameter.grad.abs())
                for name, parameter in ctx.prunable()
                if parameter.grad is not None
            }

    def after_optimizer_step(self, ctx: PruneContext) -> Proposal | None:
        if not ctx.due:
            return None
        scores = self._score()
        proposal = ctx.prune_lowest(scores)
        if self._own.regrow == "none":
            return proposal
        share, gradients = self._share(ctx), self._gradients
        self._gradients = {}
        masks = {
            name: exchange(keep, ctx.mask(name), scores[name], gradients[name], share)
            for name, keep in proposal.masks.items()
            if name in gradients
        }
        return Proposal({**proposal.masks, **masks})

    def _share(self, ctx: PruneContext) -> float:
        """The fraction of the live weights that change places now."""
        first = self._own.regrow_fraction
        if self._own.regrow_anneal == "constant":
            return first
        return first / 2 * (1 + math.cos(math.pi * ctx.schedule.progress(ctx.step)))


def exchange(keep: Tensor, kept: Tensor, score: Tensor, gradient: Tensor, share: float) -> Tensor:
    """Drop some of the weights to keep, and bring back as many that were removed before.

    Args:
        keep: mask to start from, of any shape; True keeps.
        kept: the mask until now; what is False in it may come back.
        score: the lowest of what is kept goes.
        gradient: |g|; the largest of what was removed comes back, of equal ones the first. What is
            not finite counts as 0.
        share: fraction of the weights to keep that change places, rounded down, or as many as were
            removed before if they are fewer.
    Returns:
        A mask with as many True as `keep`.
    """
    live = keep.flatten().nonzero().squeeze(1)
    gone = (~kept).to(keep.device).flatten().nonzero().squeeze(1)
    count = min(int(share * live.numel()), gone.numel())
    growth = gradient.to(keep.device).flatten()[gone]
    new = keep.flatten().clone()
    new[live[lowest(_wide(score.flatten()[live]), count)]] = False
    new[gone[lowest(-_wide(growth).nan_to_num(0, 0, 0), count)]] = True
    return new.view(keep.shape)


def _wide(values: Tensor) -> Tensor:
    """Without half precision, which not every selection on every device takes."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
