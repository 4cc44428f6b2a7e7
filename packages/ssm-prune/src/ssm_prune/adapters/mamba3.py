"""Heads and channels of heads of Mamba-3.

With h heads of p channels (E = h p), g groups of n states and K angles, in_proj has the rows E z,
E input, g n B, g n C, h step sizes, h decays, h trapezoids, K angles (of all heads). Every head is
normalised by itself, so that out_proj alone decides what is heard of it.

States are not offered: B and C are normalised over them, and they turn in pairs.
"""

from __future__ import annotations

import torch
from torch import nn

from ssm_core.layers.mamba3 import Mamba3
from ssm_prune.adapters.parts import parameters_of, rows
from ssm_prune.adapters.rounding import CHANNELS
from ssm_prune.hookspecs import hookimpl
from ssm_prune.units import BlockAdapter, Slice, UnitGroup, places


@hookimpl
def ssm_prune_adapter(module: nn.Module) -> BlockAdapter | None:
    if not isinstance(module, Mamba3):
        return None
    # the norm of a head takes its mean over the head's channels, silent ones too
    groups = (_heads(module), _channels(module)) if module.norm is None else (_heads(module),)
    return BlockAdapter(groups, parameters_of(module, "out_proj"))


def _heads(module: Mamba3) -> UnitGroup:
    E, h, p, _ = module.sizes
    own, channels = places(h), places(h, width=p)
    before = 2 * (E + module.config.ngroups * module.config.d_state)
    per_head = places(h, before, before + h, before + 2 * h)
    in_proj = Slice("in_proj.weight", 0, torch.cat([channels, channels + E], dim=1))
    out_proj = Slice("out_proj.weight", 1, channels)
    others = [Slice(name, 0, own) for name in ("dt_bias", "D", "B_bias", "C_bias")]
    if module.norm is not None:
        others.append(Slice("norm.weight", 0, channels))
    return UnitGroup(
        kind="heads",
        count=h,
        removed=(in_proj, Slice("in_proj.weight", 0, per_head), out_proj, *others),
        masked=(out_proj,),
        scored=(in_proj, out_proj),
        sizes=lambda kept: {"d_inner": len(kept) * p, "headdim": p},
        parts=module.config.ngroups,
    )


def _channels(module: Mamba3) -> UnitGroup:
    """Channel i of every head, because all heads have equally many channels."""
    E, h, p, _ = module.sizes
    own = places(p, *range(0, E, p))
    in_proj = rows(module, "in_proj", torch.cat([own, own + E], dim=1))
    out_proj = Slice("out_proj.weight", 1, own)
    return UnitGroup(
        kind="channels",
        count=p,
        removed=(*in_proj, out_proj),
        masked=(out_proj,),
        scored=(*in_proj, out_proj),
        sizes=lambda kept: {"d_inner": h * len(kept), "headdim": len(kept)},
        round_to=CHANNELS,
    )
