"""The options that every pruning method has."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from ssm_core.errors import ConfigError


@dataclass(frozen=True)
class PruneOptions:
    """What to remove and when. A method with options of its own derives its dataclass from this.

    Times are `75%` of the run, `100it` (steps), `2ep` (epochs) or a plain number of steps.

    Args:
        sparsity: fraction of the prunable weights, or units, that is removed in the end.
        units: prune single weights, or whole channels, states, heads or blocks, which can be taken
            out of the model.
        remove: with units, take what is masked out of the model at `end` and train on with an
            ordinary smaller one; otherwise it stays masked, and `ssm-prune export` can do it.
        begin: time at which the ramp leaves zero.
        end: time of the last mask update, which lands exactly on `sparsity`.
        every: time between mask updates; null: 100 steps, or a twentieth of the ramp if that is
            shorter.
        ramp: shape of the way from 0 to `sparsity`: cosine, cosine-quarter, cubic, or one that a
            plugin offers.
        scope: rank the weights of all tensors together (global), remove the same fraction of each
            tensor (layer), or more of the larger ones (erk: Erdos-Renyi-Kernel densities).
        allow_unsafe: name patterns such as `*.conv1d.weight` of tensors to prune although the
            policy forbids or limits it.
        stack: further methods with their options, such as [{method: "n:m", begin: 80%}]; a weight
            is kept only if every method keeps it.
        force_resume: go on from a checkpoint although version or options of the method are others
            than it was saved with; the report says which.
    """

    sparsity: float = 0.8
    units: Literal["weights", "channels", "states", "heads", "blocks"] = "weights"
    remove: bool = False
    begin: int | str = "5%"
    end: int | str = "75%"
    every: int | str | None = None
    ramp: str = "cosine"
    scope: Literal["global", "layer", "erk"] = "global"
    allow_unsafe: tuple[str, ...] = ()
    stack: tuple[dict[str, Any], ...] = ()
    force_resume: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.sparsity < 1:
            raise ConfigError(
                f"prune.sparsity is {self.sparsity!r}, expected a fraction from 0 to below 1"
            )
        if self.remove and self.units == "weights":
            raise ConfigError(
                "prune.remove is True with prune.units weights, expected units channels, states, "
                "heads or blocks: single weights cannot be taken out of a tensor"
            )
        if self.scope == "erk" and self.units != "weights":
            raise ConfigError(
                f"prune.scope is erk with prune.units {self.units}, expected global or layer: "
                "these densities are made for single weights"
            )


@dataclass(frozen=True)
class RampedOptions(PruneOptions):
    """Options of a method whose ramp need not start from nothing.

    Args:
        initial_sparsity: sparsity at `begin`, where the ramp leaves; equal to `sparsity`: it stays
            the same, and only what is removed may change.
    """

    initial_sparsity: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.initial_sparsity <= self.sparsity:
            raise ConfigError(
                f"prune.initial_sparsity is {self.initial_sparsity!r}, expected from 0 to "
                f"prune.sparsity ({self.sparsity})"
            )


@dataclass(frozen=True)
class OneShotOptions(PruneOptions):
    """Options of a method that changes masks once; there is no ramp.

    Args:
        begin: time at which the weights are removed.
        score: what a weight is worth: magnitude, random, or one that a plugin offers.
    """

    begin: int | str = "50%"
    end: int | str = field(init=False, default="")
    every: int | str | None = field(init=False, default=None)
    ramp: str = field(init=False, default="cosine")
    score: str = "magnitude"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "end", self.begin)
