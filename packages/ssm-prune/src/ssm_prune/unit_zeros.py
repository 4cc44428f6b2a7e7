"""Which units have no effect, told from the zeros in the weights alone, and removing them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ssm_core.sizes import sizes_metadata
from ssm_prune.adapters.blocks import Ask
from ssm_prune.artifact import Artifact
from ssm_prune.removal import remove_units
from ssm_prune.unit_masks import UnitMasks
from ssm_prune.units import UNIT_KINDS, UnitGroup

#: whole blocks first: what is in them need not be looked at
ORDER = ("blocks", *(kind for kind in UNIT_KINDS if kind != "blocks"))


def dead_units(group: UnitGroup, tensors: Mapping[str, Tensor]) -> Tensor:
    """The units of a group that are zero wherever a mask would make them zero; (units,) bool.

    Args:
        tensors: the model's, by full name.
    """
    dead = torch.ones(group.count, dtype=torch.bool)
    for part in group.masked:
        rows = tensors[part.parameter].detach().cpu().transpose(0, part.dim).flatten(1)
        zero = (rows == 0).all(dim=1)[part.places].all(dim=1)
        units = torch.arange(group.count) if part.units is None else part.units
        dead[units] &= zero
    return dead


def removable(group: UnitGroup, dead: Tensor) -> Tensor:
    """The units to keep when dead ones go: at least one, and equally many in each part."""
    rows = (~dead).view(group.parts, -1)
    wanted = max(1, int(rows.sum(dim=1).max()))
    keep = rows.clone()
    for row in keep:
        spare = (~row).nonzero().flatten()[: wanted - int(row.sum())]
        row[spare] = True
    return keep.flatten()


def remove_dead_units(model: nn.Module, ask: Ask) -> Artifact | None:
    """Take every unit without effect out of `model`, in place; None if there is none.

    Args:
        ask: the hook `ssm_prune_adapter`.
    """
    done = []
    for kind in ORDER:
        units = UnitMasks(model, kind, ask)
        tensors = dict(model.named_parameters())
        keep = {
            n: removable(group, dead_units(group, tensors)) for n, group in units.groups.items()
        }
        gone = sum(int((~mask).sum()) for mask in keep.values())
        if gone:
            remove_units(model, units.groups, keep)
            done.append(f"{gone} of {units.total} {kind}")
    if not done:
        return None
    return Artifact(model, sizes_metadata(model), f"removed: {', '.join(done)}")
