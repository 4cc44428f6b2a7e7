"""The options that every pruning method has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
        scope: rank the weights of all tensors together (global), or remove the same fraction of
            each tensor (layer).
        allow_unsafe: name patterns such as `*.conv1d.weight` of tensors to prune although the
            policy forbids or limits it.
    """

    sparsity: float = 0.8
    units: Literal["weights", "channels", "states", "heads", "blocks"] = "weights"
    remove: bool = False
    begin: int | str = "5%"
    end: int | str = "75%"
    every: int | str | None = None
    ramp: str = "cosine"
    scope: Literal["global", "layer"] = "global"
    allow_unsafe: tuple[str, ...] = ()

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
