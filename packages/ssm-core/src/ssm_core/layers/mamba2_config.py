"""Options and sizes of a Mamba-2 mixer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from ssm_core.errors import ConfigError
from ssm_core.layers.checks import positive_int
from ssm_core.layers.heads import divide
from ssm_core.layers.step_size import StepSizeConfig


class Mamba2Sizes(NamedTuple):
    """Sizes that follow from the options and the width of the model."""

    d_mlp: int
    """E - d_ssm, channels that go through a plain gated MLP instead of the scan."""
    d_ssm: int
    """h p, channels of the scan."""
    heads: int
    """h"""
    headdim: int
    """p, channels of each head."""
    d_conv_inner: int
    """d_ssm + 2 g n, channels of the convolution: x, B and C of the scan."""


@dataclass(frozen=True)
class Mamba2Config(StepSizeConfig):
    """Options of a Mamba-2 mixer.

    Attributes:
        d_state: n, states per channel.
        d_conv: k, width of the causal convolution.
        conv_init: the taps of the convolution start uniform in [-conv_init, conv_init]; None: as
            those of `torch.nn.Conv1d`.
        expand: E / d, width inside the mixer.
        d_inner: E itself, for mixers that lost heads; None means expand * d.
        headdim: p, channels per head, which share one decay. Must divide d_ssm. None means 64, or
            where 64 does not divide d_ssm, the largest power of two that does.
        d_ssm: channels of the scan; None means all E. The others form a plain gated MLP.
        ngroups: g, groups of heads that share B and C. Must divide the number of heads.
        A_init_range: range of the initial decay rates -A (uniform), unit: 1/step.
        D_has_hdim: a skip weight per channel instead of one per head.
        rmsnorm: normalise before out_proj; otherwise there is the gate alone.
        norm_width: number of channels over which the norm takes its mean, for mixers that lost
            heads and shall count them as zeros; None means d_ssm.
        norm_before_gate: gate the normalised values instead of normalising the gated ones.
        norm_eps: added to the mean square in the norm.
        dt_min, dt_max: range of the initial step sizes (log-uniform), unit: steps.
        dt_init_floor: lower bound of the initial step sizes.
        dt_limit: least and largest step size, in training and after; outside, it has no gradient.
        bias: biases in in_proj and out_proj.
        conv_bias: bias in the convolution.
        chunk_size: steps per chunk of the scan on a CPU; None lets the operator choose. Changes
            nothing but time and rounding.
        learnable_init_states: learn the state before the first step instead of starting at zero.

    Raises:
        ConfigError: a value out of range.
    """

    d_state: int = 128
    d_conv: int = 4
    conv_init: float | None = None
    expand: int = 2
    d_inner: int | None = None
    headdim: int | None = None
    d_ssm: int | None = None
    ngroups: int = 1
    A_init_range: tuple[float, float] = (1.0, 16.0)
    D_has_hdim: bool = False
    rmsnorm: bool = True
    norm_width: int | None = None
    norm_before_gate: bool = False
    norm_eps: float = 1e-5
    dt_limit: tuple[float, float] = (0.0, math.inf)
    bias: bool = False
    conv_bias: bool = True
    chunk_size: int | None = None
    learnable_init_states: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        owner = type(self).__name__
        for name in ("d_state", "d_conv", "expand", "ngroups"):
            positive_int(owner, name, getattr(self, name))
        for name in ("d_inner", "headdim", "d_ssm", "norm_width", "chunk_size"):
            if getattr(self, name) is not None:
                positive_int(owner, f"{name} (a number or None)", getattr(self, name))
        if self.conv_init is not None and not 0 < self.conv_init < math.inf:
            raise ConfigError(
                f"{owner}: conv_init is {self.conv_init!r}, expected a number above 0 or None"
            )
        least, largest = self.A_init_range
        if not 0 < least <= largest < math.inf:
            raise ConfigError(
                f"{owner}: A_init_range is {self.A_init_range!r}, "
                "expected (least, largest) with 0 < least <= largest"
            )
        least, largest = self.dt_limit
        if not 0 <= least <= largest or largest == 0:
            raise ConfigError(
                f"{owner}: dt_limit is {self.dt_limit!r}, "
                "expected (least, largest) with 0 <= least <= largest and largest above 0"
            )
        if not 0 <= self.norm_eps < math.inf:
            raise ConfigError(f"{owner}: norm_eps is {self.norm_eps!r}, expected a number from 0")
        if self.norm_before_gate and not self.rmsnorm:
            raise ConfigError(f"{owner}: norm_before_gate is True, expected rmsnorm True with it")

    def sizes(self, d_model: int) -> Mamba2Sizes:
        """Return the sizes for a model of width `d_model`.

        Raises:
            ConfigError: they do not divide one another.
        """
        width = self.expand * d_model if self.d_inner is None else self.d_inner
        inner = "expand * d_model" if self.d_inner is None else "d_inner"
        d_ssm = width if self.d_ssm is None else self.d_ssm
        if d_ssm > width:
            raise ConfigError(f"Mamba2: d_ssm is {d_ssm}, expected at most {inner} = {width}")
        name = inner if self.d_ssm is None else "d_ssm"
        heads, channels = divide("Mamba2", name, d_ssm, self.headdim, self.ngroups)
        conv = d_ssm + 2 * self.ngroups * self.d_state
        return Mamba2Sizes(width - d_ssm, d_ssm, heads, channels, conv)
