"""Channels and states of Mamba and bidirectional Mamba (Vim).

With R = dt_rank, n states and E channels, x_proj has the rows R step size, n B, n C and in_proj the
rows E x, E z. A bidirectional mixer has each tensor of a direction twice, but one in_proj, z and
out_proj: a channel goes from both directions at once.
"""

from __future__ import annotations

from torch import nn

from ssm_core.layers.bimamba import BiMamba
from ssm_core.layers.mamba import Mamba
from ssm_prune.adapters.parts import parameters_of, rows
from ssm_prune.adapters.rounding import CHANNELS
from ssm_prune.hookspecs import hookimpl
from ssm_prune.units import BlockAdapter, Slice, UnitGroup, places


@hookimpl
def ssm_prune_adapter(module: nn.Module) -> BlockAdapter | None:
    if not isinstance(module, Mamba | BiMamba):
        return None
    suffixes = ("", "_b") if isinstance(module, BiMamba) else ("",)
    groups = (_channels(module, suffixes), _states(module, suffixes))
    return BlockAdapter(groups, parameters_of(module, "out_proj"))


def _channels(module: Mamba | BiMamba, suffixes: tuple[str, ...]) -> UnitGroup:
    """A channel is silent when neither x_proj nor out_proj reads it."""
    E = module.out_proj.in_features
    own = places(E)
    in_proj = rows(module, "in_proj", places(E, 0, E))
    consumers = [Slice("out_proj.weight", 1, own)]
    others: list[Slice] = []
    for suffix in suffixes:
        consumers.append(Slice(f"x_proj{suffix}.weight", 1, own))
        others += rows(module, f"conv1d{suffix}", own) + rows(module, f"dt_proj{suffix}", own)
        others += [Slice(_A_log(suffix), 0, own), Slice(f"D{suffix}", 0, own)]
    return UnitGroup(
        kind="channels",
        count=E,
        removed=(*in_proj, *consumers, *others),
        masked=tuple(consumers),
        scored=(in_proj[0], *consumers),
        sizes=lambda kept: {"d_inner": len(kept)},
        round_to=CHANNELS,
    )


def _states(module: Mamba | BiMamba, suffixes: tuple[str, ...]) -> UnitGroup:
    """A state is silent when C does not read it."""
    n = module.config.d_state
    removed, masked = [], []
    for suffix in suffixes:
        R = getattr(module, f"dt_proj{suffix}").in_features
        name = f"x_proj{suffix}.weight"
        removed += [Slice(name, 0, places(n, R, R + n)), Slice(_A_log(suffix), 1, places(n))]
        masked.append(Slice(name, 0, places(n, R + n)))
    return UnitGroup(
        kind="states",
        count=n,
        removed=tuple(removed),
        masked=tuple(masked),
        scored=tuple(part for part in removed if part.parameter.startswith("x_proj")),
        sizes=lambda kept: {"d_state": len(kept)},
    )


def _A_log(suffix: str) -> str:
    """The name in the checkpoints of Vim: A_b_log, not A_log_b."""
    return f"A{suffix}_log"
