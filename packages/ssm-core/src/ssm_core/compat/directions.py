"""The directions in which `Mamba` and its vision forks scan, and their parameters.

Sources: hustvl/Vim (Zhu et al. 2024, arXiv:2401.09417), "v1" and "v2"; ge-xing/SegMamba (Xing et
al. 2024, arXiv:2401.13560) and scott-yjyang/Vivim (Yang et al. 2024, arXiv:2401.14168), "v3".
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ssm_core.compat.both_ways import run_both_ways
from ssm_core.compat.placement import convert
from ssm_core.errors import ConfigError
from ssm_core.init import exempt_from_weight_decay
from ssm_core.layers.checks import one_of, positive_int
from ssm_core.layers.selective import (
    SelectiveDirection,
    SelectiveSizes,
    make_direction,
    run_directions,
)
from ssm_core.shapes import Inner
from ssm_kernels.errors import ShapeError

_PARTS = ("conv1d", "x_proj", "dt_proj", "A_log", "D")
_SUFFIXES = {"none": ("",), "v1": ("",), "v2": ("", "_b"), "v3": ("", "_b", "_s")}


class Directions(NamedTuple):
    """What the arguments of a fork ask for."""

    kind: str
    """"none", "v1", "v2" or "v3"."""
    slices: int
    """Slices or frames of "v3", 1 otherwise."""
    factor: float
    """Of the sum of all directions."""


def directions_of(
    bimamba_type: str, bimamba: bool | None, nslices: int | None, nframes: int | None, halve: bool
) -> Directions:
    """What the arguments of `Mamba.__init__` of different forks ask for; see there.

    Raises:
        ConfigError: a kind that there is not, or arguments that contradict one another.
    """
    one_of("Mamba", "bimamba_type", bimamba_type, tuple(_SUFFIXES))
    if bimamba is not None:
        wanted = "v2" if bimamba else "none"
        if bimamba_type not in ("none", wanted):
            raise ConfigError(
                f"Mamba: bimamba is {bimamba}, but bimamba_type is {bimamba_type!r}; give one"
                " of them"
            )
        bimamba_type = wanted
    if bimamba_type == "v3":
        return _across_slices(nslices, nframes)
    if nslices is not None or nframes is not None:
        raise ConfigError(
            f"Mamba: nslices or nframes is set, but bimamba_type is {bimamba_type!r}; expected "
            "'v3', which scans across slices too"
        )
    return Directions(bimamba_type, 1, 0.5 if halve and bimamba_type == "v2" else 1.0)


def _across_slices(nslices: int | None, nframes: int | None) -> Directions:
    if (nslices is None) == (nframes is None):
        raise ConfigError(
            "Mamba: bimamba_type 'v3' needs either nslices (SegMamba, the sum of three scans) or "
            "nframes (Vivim, their mean), and the two forks share a default; pass one of them"
        )
    if nslices is not None:
        return Directions("v3", positive_int("Mamba", "nslices", nslices), 1.0)
    return Directions("v3", positive_int("Mamba", "nframes", nframes), 1 / 3)


def add_directions(
    mixer: nn.Module, kind: str, sizes: SelectiveSizes, dtype: torch.dtype | None
) -> None:
    """Register the parameters of all directions on `mixer`, under the names of the originals.

    conv1d, x_proj, dt_proj, A_log and D; with "v2" and "v3" the same with `_b` for backward, with
    "v3" also with `_s` for slices (A_b_log and A_s_log); "v1" has A_b_log alone.
    """
    for suffix in _SUFFIXES[kind]:
        made = make_direction(sizes)
        for part, value in zip(_PARTS, made, strict=True):
            setattr(mixer, _name(part, suffix), value)
        convert(dtype, made.conv1d, made.x_proj, made.dt_proj)
    if kind == "v1":
        A_log: Tensor = mixer.get_parameter("A_log")
        mixer.A_b_log = exempt_from_weight_decay(nn.Parameter(A_log.detach().clone()))


def direction_of(mixer: nn.Module, suffix: str = "") -> SelectiveDirection:
    """The parameters of one direction of `mixer`."""
    return SelectiveDirection(*(getattr(mixer, _name(part, suffix)) for part in _PARTS))


def run_all(mixer: nn.Module, directions: Directions, x: Inner, z: Inner) -> Inner:
    """Return the sum over all directions of `mixer` of x (b, l, E) gated by z, times the factor.

    Raises:
        ShapeError: l is no multiple of the number of slices.
    """
    kind, slices, factor = directions
    first = direction_of(mixer)
    if kind == "v1":
        return run_both_ways(first, mixer.get_parameter("A_b_log"), x, z)
    if kind == "none":
        return run_directions((first,), (False,), x, z, None)
    both = (first, direction_of(mixer, "_b"))
    y = run_directions(both, (False, True), x, z, None, factor)
    if kind == "v2":
        return y
    if x.shape[1] % slices:
        raise ShapeError(
            f"Mamba: hidden_states has {x.shape[1]} steps, expected a multiple of the {slices} "
            "slices that bimamba_type 'v3' divides them into"
        )
    across = direction_of(mixer, "_s")
    own = run_directions((across,), (False,), _across(x, slices), _across(z, slices), None, factor)
    return y + _across(own, x.shape[1] // slices)


def _across(x: Inner, slices: int) -> Inner:
    """Order steps (b, s m, E) of s slices by their place m in the slice first: (b, m s, E)."""
    return x.unflatten(1, (slices, -1)).transpose(1, 2).flatten(1, 2)


def _name(part: str, suffix: str) -> str:
    return f"A{suffix}_log" if part == "A_log" else part + suffix
