"""Hidden channels of the MLP of a residual block."""

from __future__ import annotations

from torch import nn

from ssm_core.block import MLP
from ssm_prune.adapters.rounding import CHANNELS
from ssm_prune.hookspecs import hookimpl
from ssm_prune.units import BlockAdapter, Slice, UnitGroup, places


@hookimpl
def ssm_prune_adapter(module: nn.Module) -> BlockAdapter | None:
    if not isinstance(module, MLP):
        return None
    hidden = places(module.fc1.out_features)
    consumer = Slice("fc2.weight", 1, hidden)
    rows = (Slice("fc1.weight", 0, hidden), Slice("fc1.bias", 0, hidden))
    channels = UnitGroup(
        kind="channels",
        count=len(hidden),
        removed=(*rows, consumer),
        masked=(consumer,),
        scored=(rows[0], consumer),
        sizes=lambda kept: {"hidden": len(kept)},
        round_to=CHANNELS,
    )
    return BlockAdapter((channels,), ("fc2.weight", "fc2.bias"))
