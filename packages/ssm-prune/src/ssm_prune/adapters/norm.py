"""Norms that end a residual branch: all zero, they silence it. They have no units of their own."""

from __future__ import annotations

from torch import nn

from ssm_prune.hookspecs import hookimpl
from ssm_prune.units import BlockAdapter


@hookimpl
def ssm_prune_adapter(module: nn.Module) -> BlockAdapter | None:
    if not isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) or not module.affine:
        return None
    return BlockAdapter((), ("weight", "bias"))
