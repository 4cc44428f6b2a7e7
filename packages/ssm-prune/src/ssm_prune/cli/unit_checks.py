"""The checks of `ssm-prune verify` for runs that prune whole units."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ssm_prune.adapters.blocks import Ask
from ssm_prune.cli.checks import TOLERANCE, Findings
from ssm_prune.unit_masks import UnitMasks
from ssm_prune.unit_zeros import dead_units


def check_units(
    model: nn.Module, kind: str, ask: Ask, masks: Mapping[str, Tensor] | None, found: Findings
) -> int:
    """Units must be zero where the checkpoint says, and nowhere else.

    Args:
        model: with the weights of the file.
        masks: of the checkpoint, True where kept; None without a checkpoint.
    Returns:
        How many units are left that have an effect.
    """
    tensors = dict(model.named_parameters())
    groups = UnitMasks(model, kind, ask).groups
    left = 0
    for name, group in groups.items():
        dead = dead_units(group, tensors)
        left += group.count - int(dead.sum())
        if masks is None:
            continue
        keep = masks.get(name, torch.ones_like(dead))
        if keep.shape != dead.shape:
            found.failures.append(f"{name}: {group.count} {kind}, but its mask has {len(keep)}")
            continue
        alive, unmasked = (~keep & ~dead), (keep & dead)
        for wrong, what in ((alive, "masked but not 0"), (unmasked, "0 but not masked")):
            if bool(wrong.any()):
                found.failures.append(f"{name}: {kind} {wrong.nonzero().flatten().tolist()} {what}")
    for name in masks or {}:
        if name not in groups:
            found.failures.append(f"{name}: has a mask of {kind}, but the model has none there")
    return left


def check_unit_sparsity(
    dense: UnitMasks, left: int, requested: float | None, found: Findings
) -> None:
    """As many units gone as requested, but for 1 % and what rounding may take.

    Args:
        dense: of the model that the run began with.
        left: units that have an effect.
    """
    achieved = 1 - left / max(1, dense.total)
    found.rows.append((f"{dense.kind} with an effect", f"{left:,} of {dense.total:,}"))
    found.rows.append(("achieved sparsity", f"{achieved:.2%}"))
    if requested is None:
        found.rows.append(("requested sparsity", "not compared: the run ended before its ramp"))
        return
    found.rows.append(("requested sparsity", f"{requested:.2%}"))
    slack = TOLERANCE + dense.rounding / max(1, dense.total)
    if achieved < requested - slack:
        found.failures.append(f"sparsity is {achieved:.2%}, requested was {requested:.2%}")
