"""Hidden channels of the MLP of a residual block."""

from __future__ import annotations

from torch import nn

from ssm_core.block import MLP
from ssm_prune.adapters.parts import parameters_of, rows
from ssm_prune.adapters.rounding import CHANNELS
from ssm_prune.hookspecs import hookimpl
from ssm_prune.units import BlockAdapter, Slice, UnitGroup, places


@hookimpl
def ssm_prune_adapter(module: nn.Module) -> BlockAdapter | None:
    if not isinstance(module, MLP):
        return None
    hidden = places(module.fc1.out_features)
    consumer = Slice("fc2.weight", 1, hidden)
    producers = rows(module, "fc1", hidden)
    channels = UnitGroup(
        kind="channels",
        count=len(hidden),
        removed=(*producers, consumer),
        masked=(consumer,),
        scored=(producers[0], consumer),
        sizes=lambda kept: {"hidden": len(kept)},
        round_to=CHANNELS,
    )
    return BlockAdapter((channels,), parameters_of(module, "fc2"))
