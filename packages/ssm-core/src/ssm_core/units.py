"""Units: what can be taken out of a block so that an ordinary, smaller block is left.

A channel of a Mamba mixer, for instance, is a row in some of its tensors and a column in others.
A module says which ones by a method, and can then be pruned by whole units:

    def removable_units(self) -> BlockAdapter: ...
    def resized(self, sizes): ...                   # see `ssm_core.sizes`

Nothing here prunes, so that models need to know of no tool that does.

Two things differ: what goes away with a unit (`removed`), and where zeros make it ineffective
(`masked`). The latter are not always its own weights: a channel whose input is cut off still adds
silu(bias of its convolution), so it is its consumers that must read zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import torch
from torch import Tensor

UnitKind = Literal["channels", "states", "heads", "blocks"]
UNIT_KINDS: tuple[str, ...] = get_args(UnitKind)

#: numbers of channels worth keeping are multiples of this: it fills the vectors of CPUs and the
#: tiles of GPUs, and the causal convolution of others asks for it
CHANNELS = 8


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
        silenced: names of the parameters that, all zero, make the module return zeros (one that the
            residual stream itself runs through: its input); they are how a whole branch of a
            residual block is masked. Empty: not possible.
    """

    groups: tuple[UnitGroup, ...] = ()
    silenced: tuple[str, ...] = ()


@runtime_checkable
class HasUnits(Protocol):
    """A module that says itself what can be taken out of it."""

    def removable_units(self) -> BlockAdapter:
        """Its units, for its present sizes."""


def places(count: int, *starts: int, width: int = 1) -> Tensor:
    """The places of `count` units that lie one after the other, in runs that begin at `starts` (0).

    Args:
        width: places per unit in each run.
    Returns:
        (count, len(starts) * width) int64.
    """
    run = torch.arange(count * width).view(count, width)
    return torch.cat([run + start for start in starts or (0,)], dim=1)


def hidden_channels(count: int, rows: tuple[str, ...], columns: str) -> UnitGroup:
    """The channels between two maps of a branch, of which one makes and the other reads them.

    Exact where nothing between the two mixes channels. The module takes the size "hidden".

    Args:
        rows: parameters with a row per channel; the first holds the weights that make them.
        columns: the weights that read them, a column per channel.
    """
    own = places(count)
    made, read = tuple(Slice(name, 0, own) for name in rows), Slice(columns, 1, own)
    return UnitGroup(
        kind="channels",
        count=count,
        removed=(*made, read),
        masked=(read,),
        scored=(made[0], read),
        sizes=lambda kept: {"hidden": len(kept)},
        round_to=CHANNELS,
    )
