"""Modules that say themselves what can be taken out of them, by a method `removable_units`."""

from __future__ import annotations

from torch import nn

from ssm_core.units import HasUnits
from ssm_prune.hookspecs import hookimpl
from ssm_prune.units import BlockAdapter


@hookimpl(trylast=True)
def ssm_prune_adapter(module: nn.Module) -> BlockAdapter | None:
    return module.removable_units() if isinstance(module, HasUnits) else None
