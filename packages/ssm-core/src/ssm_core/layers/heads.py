"""How Mamba-2 and Mamba-3 divide their channels into heads, and the heads into groups."""

from __future__ import annotations

import math
from typing import NamedTuple

from ssm_core.errors import ConfigError

#: channels per head of the published models
USUAL_HEADDIM = 64


class Heads(NamedTuple):
    """Heads of equal size."""

    number: int
    """h"""
    channels: int
    """p, of each head"""


def divide(owner: str, name: str, width: int, headdim: int | None, ngroups: int) -> Heads:
    """Divide `width` channels, called `name`, into heads of `headdim` and the heads into groups.

    Without `headdim` heads have 64 channels, or the largest power of two below that divides.

    Raises:
        ConfigError: they do not divide one another.
    """
    channels = math.gcd(USUAL_HEADDIM, width) if headdim is None else headdim
    if width % channels:
        raise ConfigError(
            f"{owner}: headdim is {channels}, expected a divisor of {name} = {width}, "
            f"such as {math.gcd(channels, width)}"
        )
    heads = width // channels
    if heads % ngroups:
        raise ConfigError(
            f"{owner}: ngroups is {ngroups}, expected a divisor of the number of heads, "
            f"{width} / headdim = {heads}"
        )
    return Heads(heads, channels)
