"""Heads of attention: rows of queries, keys and values in in_proj, columns of out_proj."""

from __future__ import annotations

from torch import nn

from ssm_core.layers.attention import Attention
from ssm_prune.adapters.parts import parameters_of, rows
from ssm_prune.hookspecs import hookimpl
from ssm_prune.units import BlockAdapter, Slice, UnitGroup, places


@hookimpl
def ssm_prune_adapter(module: nn.Module) -> BlockAdapter | None:
    if not isinstance(module, Attention):
        return None
    h, p = module.config.n_heads, module.headdim
    in_proj = rows(module, "in_proj", places(h, 0, h * p, 2 * h * p, width=p))
    out_proj = Slice("out_proj.weight", 1, places(h, width=p))
    heads = UnitGroup(
        kind="heads",
        count=h,
        removed=(*in_proj, out_proj),
        masked=(out_proj,),
        scored=(in_proj[0], out_proj),
        sizes=lambda kept: {"n_heads": len(kept), "headdim": p},
    )
    return BlockAdapter((heads,), parameters_of(module, "out_proj"))
