"""Take units out of a model: what is left is an ordinary, smaller model with the weights that stay.

Tensors are never traced: adapters say what belongs to a unit, and `ssm_core.sizes` builds the
smaller modules.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ssm_core.sizes import KEPT, apply_sizes
from ssm_prune.units import UnitGroup


class Cut(NamedTuple):
    """The places that stay along one axis of a tensor."""

    dim: int
    kept: Tensor


class Removal(NamedTuple):
    """What a removal does to the tensors of a model.

    Attributes:
        sizes: what `ssm_core.sizes.apply_sizes` is told.
        cuts: name of a tensor before -> what stays of it; tensors that are not named stay whole.
        old_names: name of a tensor after -> its name before.
    """

    sizes: dict[str, dict[str, Any]]
    cuts: dict[str, list[Cut]]
    old_names: dict[str, str]

    def cut(self, old_name: str, value: Tensor) -> Tensor:
        """What stays of a tensor that has the shape of the parameter `old_name`."""
        for dim, kept in self.cuts.get(old_name, ()):
            value = value.index_select(dim, kept.to(value.device))
        return value


@torch.no_grad()
def remove_units(
    model: nn.Module, groups: Mapping[str, UnitGroup], keep: Mapping[str, Tensor]
) -> Removal:
    """Take the units outside `keep` out of `model`, in place.

    Args:
        groups: of one kind, as `UnitMasks.groups` has them.
        keep: name of the module -> (units,) bool.
    Returns:
        What was done, for optimizers and averages.
    Raises:
        ConfigError: a module refuses the sizes; the model is then as it was.
    """
    changed = {name: mask for name, mask in keep.items() if not bool(mask.all())}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    parameters = {name for name, _ in model.named_parameters()}
    sizes = {
        n: dict(groups[n].sizes(mask.nonzero().flatten().tolist())) for n, mask in changed.items()
    }
    cuts = _cuts({name: groups[name] for name in changed}, changed, before)
    apply_sizes(model, sizes)
    after = model.state_dict()
    old_names = {name: _old_name(name, sizes) for name in after}
    removal = Removal(sizes, cuts, old_names)
    for name, value in after.items():
        value.copy_(removal.cut(old_names[name], before[old_names[name]]))
    assert parameters >= {old_names[name] for name, _ in model.named_parameters()}
    return removal


def shrink_optimizer(
    optimizer: torch.optim.Optimizer,
    removal: Removal,
    before: Mapping[str, nn.Parameter],
    after: Mapping[str, nn.Parameter],
) -> None:
    """Give an optimizer the parameters of the smaller model and what stays of its slots.

    Args:
        before, after: the named parameters of the model around `remove_units`.
    """
    new_of = {id(before[removal.old_names[name]]): (name, p) for name, p in after.items()}
    for group in optimizer.param_groups:
        old = group["params"]
        group["params"] = [new_of[id(p)][1] for p in old if id(p) in new_of]
        for parameter in old:
            slots = optimizer.state.pop(parameter, None)
            if slots is None or id(parameter) not in new_of:
                continue
            name, new = new_of[id(parameter)]
            optimizer.state[new] = {
                slot: removal.cut(removal.old_names[name], value)
                if isinstance(value, Tensor) and value.shape == parameter.shape
                else value
                for slot, value in slots.items()
            }


def _cuts(
    groups: Mapping[str, UnitGroup], keep: Mapping[str, Tensor], tensors: Mapping[str, Tensor]
) -> dict[str, list[Cut]]:
    gone: dict[tuple[str, int], list[Tensor]] = {}
    for name, group in groups.items():
        for part in group.removed:
            gone.setdefault((part.parameter, part.dim), []).append(part.places_of(~keep[name]))
    cuts: dict[str, list[Cut]] = {}
    for (name, dim), places in gone.items():
        stays = torch.ones(tensors[name].shape[dim], dtype=torch.bool)
        stays[torch.cat(places)] = False
        cuts.setdefault(name, []).append(Cut(dim, stays.nonzero().flatten()))
    return cuts


def _old_name(name: str, sizes: Mapping[str, Mapping[str, Any]]) -> str:
    """The name that a tensor had before blocks were taken out of the lists around it."""
    # outer lists first: the names of inner ones are those before
    for blocks in sorted((n for n, values in sizes.items() if KEPT in values), key=len):
        match = re.match(rf"{re.escape(blocks)}\.(\d+)(?=\.)", name)
        if match:
            old = sizes[blocks][KEPT][int(match[1])]
            name = f"{blocks}.{old}{name[match.end() :]}"
    return name
