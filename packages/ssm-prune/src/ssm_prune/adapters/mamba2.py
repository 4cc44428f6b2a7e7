"""Heads, channels of heads and states of Mamba-2.

With h heads of p channels (d_ssm = h p), g groups with n states each and m = d_inner - d_ssm
channels of the plain MLP, in_proj has the rows 2 m MLP, d_ssm z, d_ssm x, g n B, g n C, h step
sizes; conv1d has the channels x, B, C; out_proj reads m MLP, then d_ssm. The MLP part stays.

What is silent has zeros in its channels of the convolution, weights and bias: x (or C) is silu(0) =
0 there whatever comes in. Zeros in out_proj would not do, because the norm before it would count
the channel in its mean; with x = 0 it counts zeros, as the norm of the smaller layer does
(`norm_width`). A learned initial state is the one thing that a head can read without any x.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ssm_core.layers.mamba2 import Mamba2
from ssm_prune.adapters.parts import parameters_of, rows
from ssm_prune.adapters.rounding import CHANNELS, MATRIX_STATES
from ssm_prune.hookspecs import hookimpl
from ssm_prune.units import BlockAdapter, Slice, UnitGroup, UnitKind, places


@hookimpl
def ssm_prune_adapter(module: nn.Module) -> BlockAdapter | None:
    if not isinstance(module, Mamba2):
        return None
    groups = (_heads(module), _channels(module), _states(module))
    return BlockAdapter(groups, parameters_of(module, "out_proj"))


def _heads(module: Mamba2) -> UnitGroup:
    """As many heads of each group: the groups of a layer have equally many."""
    sizes, g = module.sizes, module.config.ngroups
    own, of_head = places(sizes.heads), places(sizes.heads, width=sizes.headdim)
    steps = 2 * (sizes.d_mlp + sizes.d_ssm + g * module.config.d_state)
    skips = of_head if module.config.D_has_hdim else own
    others = [
        *rows(module, "in_proj", own + steps),
        *(Slice(name, 0, own) for name in ("A_log", "dt_bias")),
        Slice("D", 0, skips),
    ]
    return _of_scan(module, "heads", of_head, others, own)


def _channels(module: Mamba2) -> UnitGroup:
    """Channel i of every head, because all heads have equally many channels."""
    sizes = module.sizes
    own = places(sizes.headdim, *range(0, sizes.d_ssm, sizes.headdim))
    others = [Slice("D", 0, own)] if module.config.D_has_hdim else []
    return _of_scan(module, "channels", own, others, places(sizes.headdim))


def _of_scan(
    module: Mamba2, kind: UnitKind, own: Tensor, others: list[Slice], states: Tensor
) -> UnitGroup:
    """Units that are channels of the scan.

    Args:
        own: places of each unit among the d_ssm channels.
        others: what belongs to a unit besides x, z, the norm and out_proj.
        states: places of each unit along its axis of `init_states`: heads or channels.
    """
    sizes = module.sizes
    z = 2 * sizes.d_mlp
    in_proj = rows(module, "in_proj", torch.cat([own + z, own + z + sizes.d_ssm], dim=1))
    out_proj = Slice("out_proj.weight", 1, own + sizes.d_mlp)
    masked = rows(module, "conv1d", own)
    if module.init_states is not None:
        masked.append(Slice("init_states", 0 if kind == "heads" else 1, states))
    norm = [] if module.norm is None else [Slice("norm.weight", 0, own)]

    def smaller(kept: list[int]) -> dict[str, Any]:
        heads, p = sizes.heads, sizes.headdim
        heads, p = (len(kept), p) if kind == "heads" else (heads, len(kept))
        new: dict[str, Any] = {"d_ssm": heads * p, "headdim": p}
        new["d_inner"] = sizes.d_mlp + heads * p
        if module.norm is not None:
            new["norm_width"] = module.config.norm_width or sizes.d_ssm
        return new

    return UnitGroup(
        kind=kind,
        count=len(own),
        removed=(*in_proj, out_proj, *masked, *norm, *others),
        masked=tuple(masked),
        scored=(in_proj[0], out_proj),
        sizes=smaller,
        round_to=1 if kind == "heads" else CHANNELS,
        parts=module.config.ngroups if kind == "heads" else 1,
    )


def _states(module: Mamba2) -> UnitGroup:
    """State i of all groups; it is silent when C does not read it."""
    sizes, n, g = module.sizes, module.config.d_state, module.config.ngroups
    B = places(n, *range(0, g * n, n))
    C = B + g * n
    before = 2 * (sizes.d_mlp + sizes.d_ssm)
    in_proj = rows(module, "in_proj", torch.cat([B, C], dim=1) + before)
    masked = rows(module, "conv1d", C + sizes.d_ssm)
    others = rows(module, "conv1d", B + sizes.d_ssm)
    if module.init_states is not None:
        others.append(Slice("init_states", 2, places(n)))
    return UnitGroup(
        kind="states",
        count=n,
        removed=(*in_proj, *masked, *others),
        masked=tuple(masked),
        scored=(in_proj[0],),
        sizes=lambda kept: {"d_state": len(kept)},
        round_to=MATRIX_STATES,
    )
