"""Units of a model: the groups of its modules, their masks and their scores.

Which tensors belong to a unit is said per module, by its own method `removable_units` or by an
adapter of a plugin (`ssm_prune_adapter`); see `ssm_core.units`. Everything here works on any module
for which one of them does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from ssm_core.units import (
    UNIT_KINDS,
    BlockAdapter,
    Slice,
    UnitGroup,
    UnitKind,
    places,
)

__all__ = [
    "UNIT_KINDS",
    "BlockAdapter",
    "Slice",
    "UnitGroup",
    "UnitKind",
    "find_groups",
    "parameter_masks",
    "places",
    "silenced_parameters",
    "unit_scores",
]


def find_groups(
    model: nn.Module, kind: str, ask: Callable[..., BlockAdapter | None]
) -> dict[str, UnitGroup]:
    """The groups of one kind in a model: name of the module -> group, with full parameter names.

    Groups of a single unit are left out: it has to stay.

    Args:
        ask: the hook `ssm_prune_adapter`.
    """
    found: dict[str, UnitGroup] = {}
    for fqn, module in model.named_modules():
        adapter = ask(module=module, fqn=fqn, model=model)
        for group in adapter.groups if adapter is not None else ():
            if group.kind == kind and group.count > 1:
                found[fqn] = _with_full_names(group, fqn)
    return found


def silenced_parameters(
    module: nn.Module, fqn: str, model: nn.Module, ask: Callable[..., BlockAdapter | None]
) -> list[str] | None:
    """Full names of the parameters that silence a module; None if it cannot be silenced."""
    adapter = ask(module=module, fqn=fqn, model=model)
    if adapter is None or not adapter.silenced:
        return None
    return [f"{fqn}.{name}" for name in adapter.silenced]


def parameter_masks(
    group: UnitGroup, keep: Tensor, shapes: Mapping[str, torch.Size]
) -> dict[str, Tensor]:
    """Masks of the parameters, True where kept, that make the units outside `keep` ineffective.

    Args:
        keep: (units,) bool.
        shapes: of all parameters.
    """
    masks: dict[str, Tensor] = {}
    for part in group.masked:
        name = part.parameter
        mask = masks.setdefault(name, torch.ones(shapes[name], dtype=torch.bool))
        mask.index_fill_(part.dim, part.places_of(~keep), False)
    return masks


def unit_scores(group: UnitGroup, scores: Mapping[str, Tensor]) -> Tensor:
    """The mean score of each unit's weights, as a multiple of the group's mean; (units,) float32.

    As a multiple, because the layers of a network have weights of different sizes: a common ranking
    of the sums would empty the layers with the smallest.
    """
    total, weights = torch.zeros(group.count), torch.zeros(group.count)
    for part in group.scored:
        score = scores[part.parameter].detach().float().cpu()
        per_place = score.movedim(part.dim, 0).reshape(score.shape[part.dim], -1)
        units = torch.arange(group.count) if part.units is None else part.units
        total[units] += per_place.sum(dim=1)[part.places].sum(dim=1)
        weights[units] += part.places.shape[1] * per_place.shape[1]
    mean = total / weights.clamp(min=1)
    finite = mean[mean.isfinite()].abs()
    if len(finite) and bool(finite.mean() > 0):
        mean = mean / finite.mean()
    return mean.nan_to_num(nan=0.0)  # an infinite score stays below what is masked already


def _with_full_names(group: UnitGroup, fqn: str) -> UnitGroup:
    def named(slices: tuple[Slice, ...]) -> tuple[Slice, ...]:
        prefix = f"{fqn}." if fqn else ""
        return tuple(replace(part, parameter=prefix + part.parameter) for part in slices)

    return replace(
        group,
        removed=named(group.removed),
        masked=named(group.masked),
        scored=named(group.scored),
    )
