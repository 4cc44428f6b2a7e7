"""Which units of a model are masked, and how many may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ssm_core.errors import CheckpointError
from ssm_prune.adapters.blocks import Ask, block_groups
from ssm_prune.select import lowest, target_count
from ssm_prune.units import UnitGroup, find_groups, parameter_masks, unit_scores


class UnitMasks:
    """One boolean per unit of every group of a kind, True where the unit is kept.

    Args:
        model: gives the shapes of the parameters.
        kind: "channels", "states", "heads" or "blocks".
        ask: the hook `ssm_prune_adapter`.

    Attributes:
        groups: name of the module -> its group.
        keep: name of the module -> (units,) bool.
    """

    def __init__(self, model: nn.Module, kind: str, ask: Ask) -> None:
        found = block_groups(model, ask) if kind == "blocks" else find_groups(model, kind, ask)
        self.kind = kind
        self.groups: dict[str, UnitGroup] = found
        self.keep = {
            name: torch.ones(group.count, dtype=torch.bool) for name, group in found.items()
        }
        self._shapes = {name: parameter.shape for name, parameter in model.named_parameters()}

    @property
    def total(self) -> int:
        """How many units there are."""
        return sum(group.count for group in self.groups.values())

    @property
    def removed(self) -> int:
        """How many of them are masked."""
        return sum(int((~keep).sum()) for keep in self.keep.values())

    @property
    def rounding(self) -> int:
        """By how many units a request may be missed because of multiples that must be kept."""
        return sum(_multiple(group) // 2 for group in self.groups.values())

    def masked_parameters(self) -> set[str]:
        """Names of the parameters in which units are masked."""
        return {part.parameter for group in self.groups.values() for part in group.masked}

    def scored_parameters(self) -> set[str]:
        """Names of the parameters whose weights say how much a unit matters."""
        return {part.parameter for group in self.groups.values() for part in group.scored}

    def choose(
        self, scores: Mapping[str, Tensor], sparsity: float, scope: str
    ) -> dict[str, Tensor]:
        """The units to keep when the lowest-scored ones go; what is masked stays so.

        Each group keeps a multiple of its `round_to` (the nearest one) and at least one of it, with
        equally many from each of its parts.

        Args:
            scores: a score per weight for every parameter of `scored_parameters`.
            sparsity: fraction of all units to remove.
            scope: "global" ranks the units of all groups together, by scores relative to their
                group; others take the same fraction of each group.
        """
        ranked = {
            name: unit_scores(group, scores).masked_fill(~self.keep[name], -torch.inf)
            for name, group in self.groups.items()
        }
        if scope == "global" and ranked:
            flat = torch.cat([ranked[name] for name in sorted(ranked)])
            dropped = lowest(flat, target_count(sparsity, self.total))
            sizes = [self.groups[name].count for name in sorted(ranked)]
            parts = zip(sorted(ranked), dropped.split(sizes), strict=True)
            counts = {name: int(part.sum()) for name, part in parts}
        else:
            counts = {n: target_count(sparsity, group.count) for n, group in self.groups.items()}
        return {
            name: _keep_best(self.groups[name], ranked[name], counts[name], self.keep[name])
            for name in self.groups
        }

    def parameter_masks(self, keep: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The masks of all parameters concerned; other groups stay as they are."""
        masks: dict[str, Tensor] = {}
        for name, group in self.groups.items():
            for parameter, mask in parameter_masks(
                group, keep.get(name, self.keep[name]), self._shapes
            ).items():
                masks[parameter] = masks[parameter] & mask if parameter in masks else mask
        return masks

    def state_dict(self) -> dict[str, Any]:
        """The masks of groups that lost units."""
        return {name: keep.to(torch.uint8) for name, keep in self.keep.items() if not keep.all()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state_dict` returned.

        Raises:
            CheckpointError: of a model with other groups.
        """
        for name, keep in state.items():
            if name not in self.groups or keep.shape != (self.groups[name].count,):
                raise CheckpointError(
                    f"the checkpoint masks {len(keep)} {self.kind} of {name}, which this model "
                    "does not have: resume with the model of the original run"
                )
            self.keep[name] = keep.bool()


def _multiple(group: UnitGroup) -> int:
    """The numbers of units that a group may keep are multiples of this, or all of them."""
    wanted = group.round_to * group.parts
    return wanted if wanted <= group.count else group.parts


def _keep_best(group: UnitGroup, scores: Tensor, drop: int, kept: Tensor) -> Tensor:
    """Keep the best units: of the allowed numbers the one nearest to count - drop."""
    present, multiple = int(kept.sum()), _multiple(group)
    allowed = {present, *range(multiple, present, multiple)}
    left = min(allowed, key=lambda number: (abs(number - (group.count - drop)), -number))
    size = group.count // group.parts
    rows = scores.view(group.parts, size)
    dropped = [lowest(row, size - left // group.parts) for row in rows]
    return ~torch.cat(dropped)


def check_units(group: UnitGroup, name: str, keep: Tensor) -> str | None:
    """What is wrong with proposed units of a group; None if nothing is."""
    if keep.dtype != torch.bool or keep.shape != (group.count,):
        return (
            f"the units of {name} are {keep.dtype} {tuple(keep.shape)}, expected torch.bool "
            f"({group.count},), True where kept"
        )
    if not keep.any():
        return f"no unit of {name} would be left, expected one or more"
    per_part = keep.view(group.parts, -1).sum(dim=1)
    if group.parts > 1 and int(per_part.min()) != int(per_part.max()):
        return (
            f"{name} would keep {per_part.tolist()} units in its {group.parts} parts, expected "
            "equally many in each"
        )
    return None
