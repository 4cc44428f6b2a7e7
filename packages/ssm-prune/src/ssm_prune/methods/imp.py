"""Iterative magnitude pruning: train, remove the smallest weights, go back, train again.

Source: Frankle and Carbin 2019, arXiv:1803.03635 (from the initial weights); Frankle et al. 2020,
arXiv:1912.05671 (from step k); Renda et al. 2020, arXiv:2003.02389 (learning-rate rewinding,
fine-tuning).
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from ssm_core.errors import ConfigError
from ssm_prune.context import PruneContext
from ssm_prune.options import PruneOptions
from ssm_prune.pruner import Pruner, Rewind
from ssm_prune.select import target_count
from ssm_prune.steps import RunLength, parse_time

#: fraction of the surviving weights that a level removes
FRACTION = 0.2
EARLY = 500


@dataclass(frozen=True)
class ImpOptions(PruneOptions):
    """Options of iterative magnitude pruning. The run's length is that of each level.

    Args:
        fraction: part of the surviving weights that each level removes, the last one less so that
            it lands on `sparsity`; null: 0.2, or with `levels` what makes all of them alike.
        levels: how often to prune and train again; null: as many as `fraction` needs.
        rewind: what a level begins with: the weights after `rewind_step` (k), the initial ones
            (init), or those it has, at the learning rates from `rewind_step` on (lr) or for
            fine-tuning, which by default repeats the last quarter of the run (none).
        rewind_step: time to go back to; null: 500 steps, or 5 % of a run for which that is more; 75
            % of the run with rewind none.
        rewind_optimizer: empty the optimizer's slots for a level, or restore those of that time.
        reinit: random: as a control, put the weights that a level begins with in random order
            within each tensor; only with rewind init.
    """

    fraction: float | None = None
    levels: int | None = None
    rewind: Literal["k", "init", "lr", "none"] = "k"
    rewind_step: int | str | None = None
    rewind_optimizer: Literal["reset", "restore"] = "reset"
    reinit: Literal["none", "random"] = "none"
    # masks change between levels and not along a ramp
    remove: bool = field(init=False, default=False)
    begin: int | str = field(init=False, default="100%")
    end: int | str = field(init=False, default="100%")
    every: int | str | None = field(init=False, default=None)
    ramp: str = field(init=False, default="cosine")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fraction is not None and not 0 < self.fraction < 1:
            raise ConfigError(
                f"prune.fraction is {self.fraction!r}, expected a number between 0 and 1"
            )
        if self.levels is not None and self.levels < 1:
            raise ConfigError(f"prune.levels is {self.levels!r}, expected 1 or more")
        if self.fraction is not None and self.levels is not None:
            raise ConfigError(
                "prune.fraction and prune.levels are both set, expected one of them: with "
                "prune.sparsity, each follows from the other"
            )
        if self.rewind == "init" and self.rewind_step is not None:
            raise ConfigError(
                f"prune.rewind_step is {self.rewind_step!r} with prune.rewind init, expected "
                "rewind k, lr or none: the initial weights are those of step 0"
            )
        if self.reinit == "random" and self.rewind != "init":
            raise ConfigError(
                f"prune.reinit is random with prune.rewind {self.rewind}, expected rewind init: "
                "the values that are put in random order are the initial ones"
            )
        if self.rewind == "none" and self.rewind_optimizer == "restore":
            raise ConfigError(
                "prune.rewind_optimizer is restore with prune.rewind none, expected rewind k, init "
                "or lr: fine-tuning goes on with the optimizer's slots as they are"
            )


class Imp(Pruner):
    """Between levels, remove a fraction of the surviving weights, those of smallest magnitude.

    The masks of a level are within those of the level before; what is left over is the "ticket".
    """

    follows_schedule: ClassVar[bool] = False
    options: ImpOptions

    def setup(self, ctx: PruneContext) -> None:
        self.counts = level_counts(self.options, ctx.total)
        self.step = _rewind_step(self.options, ctx.length)

    def rewind_points(self, ctx: PruneContext) -> Collection[int]:
        return (self.step,) if len(self.counts) > 1 else ()

    def on_steps_done(self, ctx: PruneContext) -> Rewind | None:
        if ctx.level + 1 >= len(self.counts):
            return None
        scores = {name: weight.abs() for name, weight in ctx.prunable()}
        proposal = ctx.prune_lowest(scores, self.counts[ctx.level + 1] / ctx.total)
        if self.options.rewind == "none":
            return Rewind(self.step, proposal, "present", "keep")
        if self.options.rewind == "lr":
            return Rewind(self.step, proposal, "present", self.options.rewind_optimizer)
        random = self.options.reinit == "random"
        weights: Literal["saved", "shuffled"] = "shuffled" if random else "saved"
        return Rewind(self.step, proposal, weights, self.options.rewind_optimizer)

    def promised(self, ctx: PruneContext) -> float:
        return self.counts[ctx.level] / max(1, ctx.total)


def level_counts(options: ImpOptions, total: int) -> list[int]:
    """How many of `total` weights, or units, are gone in each level; nothing in level 0.

    Each level removes round(fraction * survivors), and the last as many as `sparsity` asks for.
    """
    sparsity, levels = options.sparsity, options.levels
    if not sparsity:
        return [0]
    if levels is None:
        fraction = FRACTION if options.fraction is None else options.fraction
        # 1 - (1 - fraction)^levels >= sparsity; the slack is for sparsities like 0.36
        levels = max(1, math.ceil(math.log(1 - sparsity) / math.log(1 - fraction) - 1e-9))
    else:
        fraction = 1 - (1 - sparsity) ** (1 / levels)
    last = target_count(sparsity, total)
    counts = [0]
    for _ in range(levels - 1):
        counts.append(min(last, counts[-1] + round(fraction * (total - counts[-1]))))
    return [*counts, last]


def _rewind_step(options: ImpOptions, length: RunLength) -> int:
    """The step that levels begin at.

    Raises:
        ConfigError: unreadable, or not before the end of the run.
    """
    if options.rewind == "init":
        return 0
    if options.rewind_step is None:
        if options.rewind == "none":
            return length.total_steps * 3 // 4
        return min(EARLY, round(0.05 * length.total_steps))
    step = parse_time(options.rewind_step, length, "prune.rewind_step")
    if step >= length.total_steps:
        raise ConfigError(
            f"prune.rewind_step is {options.rewind_step} = step {step}, expected one before the "
            f"end of the run ({length.total_steps} steps): nothing would be trained after it"
        )
    return step
