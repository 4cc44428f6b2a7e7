"""Units: what can be taken out of a block so that an ordinary, smaller block is left.

A channel of a Mamba mixer, for instance, is a row in some of its tensors and a column in others.
Which ones is said by adapters, one per kind of block (`ssm_prune_adapter`); everything else here
works on any block that has one.

Two things differ: what goes away with a unit (`removed`), and where zeros make it ineffective
(`masked`). The latter are not always its own weights: a channel whose input is cut off still adds
silu(bias of its convolution), so it is its consumers that must read zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

UnitKind = Literal["channels", "states", "heads", "blocks"]
UNIT_KINDS: tuple[str, ...] = get_args(UnitKind)


@dataclass(frozen=True)
class Slice:
    """Places along one axis of one parameter that belong to units.

    Attributes:
        parameter: name of the parameter (or buffer) within the module.
        dim: axis.
        places: (m, k) int64; unit units[i] has the places places[i].
        units: (m,) int64; None: all units of the group, in order.
    """

    parameter: str
    dim: int
    places: Tensor
    units: Tensor | None = None

    def places_of(self, chosen: Tensor) -> Tensor:
        """The places of the units that `chosen` (units of the group,) bool marks, ascending."""
        marked = chosen if self.units is None else chosen[self.units]
        return self.places[marked].flatten().sort().values


@dataclass(frozen=True)
class UnitGroup:
    """The units of one kind in one module.

    Attributes:
        kind: "channels", "states", "heads" or "blocks".
        count: how many there are.
        removed: everything that goes away with a unit.
        masked: where zeros make a unit ineffective, exactly.
        scored: whose weights say how much a unit matters.
        sizes: places of the units that stay -> fields of the module's configuration, as
            `ssm_core.sizes` takes them.
        round_to: numbers of units that are worth keeping are multiples of this.
        parts: the units lie in so many equal runs, each of which must keep equally many.
    """

    kind: UnitKind
    count: int
    removed: tuple[Slice, ...]
    masked: tuple[Slice, ...]
    scored: tuple[Slice, ...]
    sizes: Callable[[list[int]], Mapping[str, Any]]
    round_to: int = 1
    parts: int = 1


@dataclass(frozen=True)
class BlockAdapter:
    """What can be taken out of one module.

    Attributes:
        groups: at most one per kind.
        silenced: names of the parameters that, all zero, make the module return zeros; they are
            how a whole branch of a residual block is masked. Empty: not possible.
    """

    groups: tuple[UnitGroup, ...] = ()
    silenced: tuple[str, ...] = ()


def places(count: int, *starts: int, width: int = 1) -> Tensor:
    """The places of `count` units that lie one after the other, in runs that begin at `starts` (0).

    Args:
        width: places per unit in each run.
    Returns:
        (count, len(starts) * width) int64.
    """
    run = torch.arange(count * width).view(count, width)
    return torch.cat([run + start for start in starts or (0,)], dim=1)


def find_groups(
    model: nn.Module, kind: str, ask: Callable[..., BlockAdapter | None]
) -> dict[str, UnitGroup]:
    """The groups of one kind in a model: name of the module -> group, with full parameter names.

    Args:
        ask: the hook `ssm_prune_adapter`.
    """
    found: dict[str, UnitGroup] = {}
    for fqn, module in model.named_modules():
        adapter = ask(module=module, fqn=fqn, model=model)
        for group in adapter.groups if adapter is not None else ():
            if group.kind == kind and group.count > 0:
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
        per_place = score.transpose(0, part.dim).flatten(1)
        units = torch.arange(group.count) if part.units is None else part.units
        total[units] += per_place.sum(dim=1)[part.places].sum(dim=1)
        weights[units] += part.places.shape[1] * per_place.shape[1]
    mean = total / weights.clamp(min=1)
    middle = mean.abs().mean()
    return mean / middle if bool(middle > 0) else mean


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
