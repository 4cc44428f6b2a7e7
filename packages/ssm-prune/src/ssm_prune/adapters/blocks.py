"""Whole residual blocks of a list of blocks, e.g. `tower.layers`.

A block says by an attribute `branches` which of its parts, by name ("mixer", "op.layer"), add to
the residual stream; it does nothing when all of them are silent, and its place in the list can be
closed up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import attrgetter

import torch
from torch import nn

from ssm_core.sizes import KEPT
from ssm_prune.units import BlockAdapter, Slice, UnitGroup, silenced_parameters

Ask = Callable[..., BlockAdapter | None]


def block_groups(model: nn.Module, ask: Ask) -> dict[str, UnitGroup]:
    """The lists of more than one block that can be silenced: name of the list -> group.

    Args:
        ask: the hook `ssm_prune_adapter`.
    """
    found = {}
    for fqn, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) > 1:
            group = _group(fqn, module, model, ask)
            if group is not None:
                found[fqn] = group
    return found


def _group(fqn: str, blocks: nn.ModuleList, model: nn.Module, ask: Ask) -> UnitGroup | None:
    masked: list[Slice] = []
    scored: list[Slice] = []
    for unit, block in enumerate(blocks):
        prefix = f"{fqn}.{unit}"
        silent = _silenced(block, prefix, model, ask)
        if silent is None:
            return None
        parameters = dict(block.named_parameters(prefix=prefix))
        masked += _whole(unit, {name: parameters[name] for name in silent})
        scored += _whole(unit, {n: p for n, p in parameters.items() if _is_weight(p)})
    return UnitGroup(
        kind="blocks",
        count=len(blocks),
        removed=(),
        masked=tuple(masked),
        scored=tuple(scored),
        sizes=lambda kept: {KEPT: kept},
    )


def _silenced(block: nn.Module, prefix: str, model: nn.Module, ask: Ask) -> list[str] | None:
    """Full names of the parameters that make all branches of a block return zeros."""
    branches: Iterable[str] | None = getattr(block, "branches", None)
    if branches is None:
        return None
    names = []
    for branch in branches:
        module = attrgetter(branch)(block)
        if module is None:
            continue
        silent = silenced_parameters(module, f"{prefix}.{branch}", model, ask)
        if silent is None:
            return None
        names += silent
    return names


def _is_weight(parameter: nn.Parameter) -> bool:
    """Whether its size says how much it does: not so for state matrices, which may be huge."""
    decay = getattr(parameter, "_optim", {}).get("weight_decay")
    exempt = getattr(parameter, "_no_weight_decay", False) or decay == 0
    return parameter.ndim > 1 and not exempt


def _whole(unit: int, parameters: dict[str, nn.Parameter]) -> list[Slice]:
    return [
        Slice(name, 0, torch.arange(parameter.shape[0]).unsqueeze(0), torch.tensor([unit]))
        for name, parameter in parameters.items()
    ]
