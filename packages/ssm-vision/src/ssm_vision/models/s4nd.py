"""S4ND over two axes: S4's global convolution for maps, Nguyen et al. 2022, arXiv:2210.06583.

A kernel of two axes is the outer product of two kernels of one axis (section 3.1), each of a state
space model of its own that runs in both directions:

    K[i, j] = sum_r K_y[r, i] K_x[r, j],     i, j = .., -1, 0, 1, ..
    y[s, t] = sum_{i, j} K[i, j] u[s - i, t - j] + D u[s, t]

Such a kernel need never be made: convolving along x with K_x and then along y with K_y is the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssm_core.errors import ConfigError
from ssm_core.keys import with_fields
from ssm_core.layers.checks import one_of, positive_int
from ssm_core.layers.long_convolution import bidirectional_convolution, long_convolution
from ssm_core.layers.s4_kernel import S4Kernel
from ssm_core.layers.s4d import S4DConfig
from ssm_core.layers.s4d_kernel import S4DKernel
from ssm_core.layers.state_space_kernel import StateSpaceKernel
from ssm_core.norm import at_least_float32
from ssm_core.shapes import ConvolutionKernel
from ssm_core.units import BlockAdapter
from ssm_kernels.errors import ShapeError
from ssm_vision.models.removable import s4nd_units

ChannelLastMap: TypeAlias = Annotated[Tensor, "b y x d"]


@dataclass(frozen=True)
class S4NDConfig(S4DConfig):
    """Options of S4ND: those of `ssm_core.layers.s4d.S4DConfig`, of which bidirectional is on, and

    Attributes:
        kernel: "s4d" (diagonal) or "s4" (diagonal plus low rank, init "legs" and bilinear only).
        rank: products that a kernel is the sum of; the paper has 1.
        l_max: of "s4": rows and columns that new kernels are made for; more lengthen them in place.
    """

    bidirectional: bool = True
    kernel: Literal["s4d", "s4"] = "s4d"
    rank: int = 1
    l_max: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("S4NDConfig", "kernel", self.kernel, ("s4d", "s4"))
        positive_int("S4NDConfig", "rank", self.rank)
        positive_int("S4NDConfig", "l_max", self.l_max)
        if self.kernel == "s4" and (self.init, self.disc) != ("legs", "zoh"):
            raise ConfigError(
                f"S4NDConfig: init is {self.init!r} and disc {self.disc!r} with kernel 's4', which "
                "has its own, expected both left out"
            )


class S4ND(nn.Module):
    """Mix a map over its rows and columns, (b, y, x, d) -> (b, y, x, d), any size.

    y = glu(output_linear(dropout(gelu(K * u + D u)))) as in `ssm_core.layers.S4`. All before
    `output_linear` is in float32 at least, also under autocast.

    Parameters: D (c, d), those of `kernel_y` and `kernel_x` with c rank kernels for each direction,
    output_linear.0 (2 d, c d) with bias.

    Cost: O(c rank d n (y + x)) time for the kernels, O(b c rank d y x log(y x)) for the
    convolutions and O(b y x c d^2) for the output map; O(b c rank d y x) memory.
    """

    def __init__(self, d_model: int, config: S4NDConfig | None = None) -> None:
        """Build the layer for maps of d_model channels.

        Raises:
            ConfigError: not a width, or `n_ssm` does not divide it.
        """
        super().__init__()
        self.config = config = config or S4NDConfig()
        self.d_model = d_model = positive_int("S4ND", "d_model", d_model)
        self.D = nn.Parameter(torch.randn(config.channels, d_model))
        self.kernel_y, self.kernel_x = _kernel(d_model, config), _kernel(d_model, config)
        self.output_linear: nn.Module = nn.Identity()
        if config.final_act == "glu":
            self.output_linear = nn.Sequential(
                nn.Linear(config.channels * d_model, 2 * d_model), nn.GLU(dim=-1)
            )

    def forward(self, x: ChannelLastMap) -> ChannelLastMap:
        """Mix x (b, y, x, d).

        Raises:
            ShapeError: not (b, y, x, d_model).
        """
        if x.dim() != 4 or x.shape[3] != self.d_model:
            raise ShapeError(
                f"S4ND: x has shape {tuple(x.shape)}, expected (b, y, x, d) = "
                f"(b, y, x, {self.d_model})"
            )
        u = at_least_float32(x)
        y = self.convolve(u) + at_least_float32(self.D) * u.unsqueeze(3)
        y = y.flatten(3)
        if self.config.activation == "gelu":
            y = F.gelu(y)
        mixed: Tensor = self.output_linear(self._drop(y).to(x.dtype))
        return mixed

    def resized(self, sizes: Mapping[str, Any]) -> S4ND:
        """Return a new, untrained layer in which fields of the configuration differ.

        Raises:
            UnknownNameError: the configuration has no such field.
            ConfigError: a value out of range.
        """
        return S4ND(self.d_model, with_fields(self.config, sizes, "S4ND"))

    def removable_units(self) -> BlockAdapter:
        """States of diagonal kernels."""
        return s4nd_units(self)

    def convolve(self, u: ChannelLastMap) -> Tensor:
        """K * u, (b, y, x, c, d), for u (b, y, x, d), float32 or float64."""
        batch, height, width, d = u.shape
        along_x = self._convolve(u.flatten(0, 1), self.kernel_x(width))  # (b y, x, c r, d)
        # every output of the first convolution has a kernel of its own in the second
        features = (self.config.channels, self.config.rank, d)
        columns = along_x.view(batch, height, width, math.prod(features)).transpose(1, 2)
        K_y = self.kernel_y(height).view(-1, math.prod(features), height)
        both = self._convolve(columns.flatten(0, 1), K_y)  # (b x, y, 1, c r d)
        return both.view(batch, width, height, *features).sum(dim=4).transpose(1, 2)

    def _convolve(self, u: Tensor, K: ConvolutionKernel) -> Tensor:
        if self.config.bidirectional:
            return bidirectional_convolution(u, *K.chunk(2))
        return long_convolution(u, K)

    def _drop(self, y: Tensor) -> Tensor:
        if not self.config.tie_dropout:
            return F.dropout(y, self.config.dropout, self.training)
        return y * F.dropout(torch.ones_like(y[:, :1, :1]), self.config.dropout, self.training)


def _kernel(d_model: int, config: S4NDConfig) -> StateSpaceKernel:
    # the kernels have no output map; with one the configuration allows any number of them
    config = replace(config, channels=config.channels * config.rank, final_act="glu")
    if config.kernel == "s4":
        return S4Kernel(d_model, config, config.l_max)
    return S4DKernel(d_model, config, config.init, config.disc)
