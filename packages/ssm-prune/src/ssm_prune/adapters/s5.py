"""States of S5: rows of Lambda, the step sizes and B, columns of C.

A state is silent when no direction's C reads it. With conj_sym a stored state is one of a conjugate
pair. The smaller layer is no longer made of `blocks` copies, which say how it starts only.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from ssm_core.layers.s5 import S5
from ssm_prune.adapters.parts import parameters_of
from ssm_prune.adapters.rounding import CHANNELS
from ssm_prune.hookspecs import hookimpl
from ssm_prune.units import BlockAdapter, Slice, UnitGroup, places


@hookimpl
def ssm_prune_adapter(module: nn.Module) -> BlockAdapter | None:
    if not isinstance(module, S5):
        return None
    silenced = (*(part.parameter for part in _readers(module)), "D")
    if module.config.activation == "full_glu":  # out1 has a bias
        silenced = parameters_of(module, "out1")
    return BlockAdapter((_states(module),), silenced)


def _states(module: S5) -> UnitGroup:
    p, config = len(module.Lambda_re), module.config
    per_state = 2 if config.conj_sym else 1
    readers = _readers(module)
    names = ("Lambda_re", "Lambda_im", "log_step", "B")
    others = [Slice(name, 0, places(p)) for name in names]

    def smaller(kept: list[int]) -> dict[str, Any]:
        blocks = config.blocks if len(kept) % config.blocks == 0 else 1
        return {"d_state": per_state * len(kept), "blocks": blocks}

    return UnitGroup(
        kind="states",
        count=p,
        removed=(*others, *readers),
        masked=readers,
        scored=(others[-1], *readers),
        sizes=smaller,
        round_to=CHANNELS,
    )


def _readers(module: S5) -> tuple[Slice, ...]:
    """The columns of C, C1 and C2, or of one C (h, 2p, 2) with those of both directions."""
    p = len(module.Lambda_re)
    if not module.config.bidirectional:
        return (Slice("C", 1, places(p)),)
    if module.config.C_init == "complex_normal":
        return (Slice("C", 1, places(p, 0, p)),)
    return Slice("C1", 1, places(p)), Slice("C2", 1, places(p))
