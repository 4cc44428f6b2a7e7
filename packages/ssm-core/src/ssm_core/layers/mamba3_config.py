"""Options and sizes of a Mamba-3 mixer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from ssm_core.errors import ConfigError
from ssm_core.layers.checks import positive_int
from ssm_core.layers.heads import divide
from ssm_core.layers.step_size import StepSizeConfig


class Mamba3Sizes(NamedTuple):
    """Sizes that follow from the options and the width of the model."""

    d_inner: int
    """E = h p"""
    heads: int
    """h"""
    headdim: int
    """p, channels of each head."""
    angles: int
    """K, pairs of states that turn."""


@dataclass(frozen=True)
class Mamba3Config(StepSizeConfig):
    """Options of a Mamba-3 mixer.

    Attributes:
        d_state: n, states per channel.
        expand: E / d, width inside the mixer.
        d_inner: E itself, for mixers that lost heads; None means expand * d.
        headdim: p, channels per head. Must divide E. None means 64, or where 64 does not divide E,
            the largest power of two that does.
        ngroups: g, groups of heads that share B and C. Must divide the number of heads.
        rope_fraction: part of the states that turn in pairs, above 0 and at most 1.
        dt_min, dt_max: range of the initial step sizes (log-uniform), unit: steps.
        dt_init_floor: lower bound of the initial step sizes.
        A_floor: least decay rate -A, unit: 1/step.
        is_outproj_norm: normalise each head before the gate.
        chunk_size: steps per chunk of the scan on a CPU; None lets the operator choose. Changes
            nothing but time and rounding.

    Raises:
        ConfigError: a value out of range.
    """

    d_state: int = 128
    expand: int = 2
    d_inner: int | None = None
    headdim: int | None = None
    ngroups: int = 1
    rope_fraction: float = 0.5
    A_floor: float = 1e-4
    is_outproj_norm: bool = False
    chunk_size: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        owner = type(self).__name__
        for name in ("d_state", "expand", "ngroups"):
            positive_int(owner, name, getattr(self, name))
        for name in ("d_inner", "headdim", "chunk_size"):
            if getattr(self, name) is not None:
                positive_int(owner, f"{name} (a number or None)", getattr(self, name))
        if not 0 < self.rope_fraction <= 1 or int(self.d_state * self.rope_fraction) < 2:
            raise ConfigError(
                f"{owner}: rope_fraction is {self.rope_fraction!r}, expected above 0, at most 1, "
                f"and two or more of the d_state = {self.d_state} states"
            )
        if not 0 < self.A_floor < math.inf:
            raise ConfigError(f"{owner}: A_floor is {self.A_floor!r}, expected a number above 0")

    def sizes(self, d_model: int) -> Mamba3Sizes:
        """Return the sizes for a model of width `d_model`.

        Raises:
            ConfigError: they do not divide one another.
        """
        width = self.expand * d_model if self.d_inner is None else self.d_inner
        name = "expand * d_model" if self.d_inner is None else "d_inner"
        heads, channels = divide("Mamba3", name, width, self.headdim, self.ngroups)
        return Mamba3Sizes(width, heads, channels, int(self.d_state * self.rope_fraction) // 2)
