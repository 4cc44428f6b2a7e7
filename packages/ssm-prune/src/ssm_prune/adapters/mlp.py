"""Hidden channels of the MLP of a residual block."""

from __future__ import annotations

from torch import nn

from ssm_core.block import MLP
from ssm_core.units import hidden_channels
from ssm_prune.adapters.parts import parameters_of
from ssm_prune.hookspecs import hookimpl
from ssm_prune.units import BlockAdapter


@hookimpl
def ssm_prune_adapter(module: nn.Module) -> BlockAdapter | None:
    if not isinstance(module, MLP):
        return None
    rows = parameters_of(module, "fc1")
    channels = hidden_channels(module.fc1.out_features, rows, "fc2.weight")
    return BlockAdapter((channels,), parameters_of(module, "fc2"))
