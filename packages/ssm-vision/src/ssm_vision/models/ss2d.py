"""SS2D, the mixer of VMamba: four selective scans along the rows and columns of a map, added up.

    map (b, y, x, d) -> in_proj -> x, z -> depthwise 3x3 convolution, SiLU -> four scans, summed
    -> LayerNorm, gated by silu(z) if there is a z -> out_proj -> map (b, y, x, d)

The routes are 0: row by row, 1: column by column, 2 and 3: the reverse of 0 and 1. A route reorders
pixels and a projection treats every pixel alike, so that it does not matter which comes first: here
all four routes are projected in one matrix product on the map as it is, and the scans follow the
routes by index. The published code makes four copies of the map first and projects those.

Source: Liu et al. 2024, arXiv:2401.10166, section 4.2 and appendix. Parameter names and shapes are
those of its checkpoints, in which the order of the axes in memory makes no difference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssm_core.errors import ConfigError
from ssm_core.init import init_step_size_bias
from ssm_core.keys import with_fields
from ssm_core.layers.checks import positive_int
from ssm_core.linear import Linear
from ssm_core.norm import LayerNorm, at_least_float32
from ssm_core.units import BlockAdapter
from ssm_kernels import selective_scan_directions
from ssm_vision.models.removable import ss2d_units

ChannelLast: TypeAlias = Annotated[Tensor, "b y x d"]
"""A feature map with the channels of a pixel next to each other, as linear maps and scans want."""

#: in the order of the parameters of the checkpoints
ROUTES = ("forward", "down", "backward", "up")
#: least, greatest and floor of the initial step sizes
STEP_SIZES = (0.001, 0.1, 1e-4)


@dataclass(frozen=True)
class SS2DConfig:
    """Options of the mixer; the defaults are those of the first release ("v0").

    Attributes:
        d_state: n, states per channel and route.
        ssm_ratio: inner channels E per channel of the map, E = int(ssm_ratio d).
        d_inner: E itself, for mixers that lost channels; None means int(ssm_ratio d).
        norm_width: number of channels over which the norm takes mean and variance, for mixers that
            lost channels and shall count them as zeros; None means E.
        dt_rank: R, rank of the projection that makes step sizes; None means ceil(d / 16).
        gated: multiply by silu(z) before the last projection.
        conv_bias: give the convolution a bias.
        float32_scan: read the scans' inputs in float32 also where autocast made them 16 bits wide.
            The states are float32 in any case.

    Raises:
        ConfigError: a value out of range.
    """

    d_state: int = 16
    ssm_ratio: float = 2.0
    d_inner: int | None = None
    norm_width: int | None = None
    dt_rank: int | None = None
    gated: bool = True
    conv_bias: bool = True
    float32_scan: bool = True

    def __post_init__(self) -> None:
        positive_int("SS2DConfig", "d_state", self.d_state)
        for name in ("d_inner", "norm_width", "dt_rank"):
            if getattr(self, name) is not None:
                positive_int("SS2DConfig", f"{name} (a number or None)", getattr(self, name))
        if not 0 < self.ssm_ratio < math.inf:
            raise ConfigError(
                f"SS2DConfig: ssm_ratio is {self.ssm_ratio!r}, expected a number above 0"
            )

    def inner(self, d_model: int) -> int:
        """E, channels inside."""
        return int(self.ssm_ratio * d_model) if self.d_inner is None else self.d_inner

    def rank(self, d_model: int) -> int:
        """R, from the width of the map, not from E."""
        return math.ceil(d_model / 16) if self.dt_rank is None else self.dt_rank


#: the two published forms; the second has no gate ("noz") and usually one state
V0 = SS2DConfig()
V05_NOZ = SS2DConfig(d_state=1, ssm_ratio=1.0, gated=False, conv_bias=False, float32_scan=False)


class SS2D(nn.Module):
    """Mix the pixels of a map along four routes, (b, y, x, d) -> (b, y, x, d); any size.

    Cost: O(b y x E (d + n + R)) time; no permuted copy of the map. The largest intermediate are the
    step sizes (b, y x, 4, E).
    """

    def __init__(self, d_model: int, config: SS2DConfig = V0) -> None:
        """Make the mixer for maps of `d_model` channels.

        Raises:
            ConfigError: there are no inner channels.
        """
        super().__init__()
        self.config = config
        self.d_model = positive_int("SS2D", "d_model", d_model)
        self.d_inner = inner = positive_int("SS2D", "d_inner", config.inner(d_model))
        self.dt_rank = rank = config.rank(d_model)
        n, k = config.d_state, len(ROUTES)
        self.in_proj = Linear(d_model, 2 * inner if config.gated else inner, bias=False)
        self.conv2d = nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=config.conv_bias)
        self.x_proj_weight = nn.Parameter(_uniform((k, rank + 2 * n, inner), inner**-0.5))
        self.dt_projs_weight = nn.Parameter(_uniform((k, inner, rank), rank**-0.5))
        self.dt_projs_bias = nn.Parameter(torch.empty(k, inner))
        init_step_size_bias(self.dt_projs_bias, *STEP_SIZES)
        # One row per route and channel, routes outermost. All of these decay as published, but Ds.
        self.A_logs = nn.Parameter(torch.arange(1.0, n + 1).log().repeat(k * inner, 1))
        self.Ds = nn.Parameter(torch.ones(k * inner))
        self.out_norm = LayerNorm(inner, width=config.norm_width)
        self.out_proj = Linear(inner, d_model, bias=False)

    def resized(self, sizes: Mapping[str, Any]) -> SS2D:
        """Return a new, untrained mixer in which fields of the configuration differ.

        Raises:
            UnknownNameError: the configuration has no such field.
            ConfigError: a value out of range.
        """
        return SS2D(self.d_model, with_fields(self.config, sizes, "SS2D"))

    def removable_units(self) -> BlockAdapter:
        """Inner channels and states."""
        return ss2d_units(self)

    def forward(self, x: ChannelLast) -> ChannelLast:
        """Mix x (b, y, x, d)."""
        x, z = self.in_proj(x).chunk(2, dim=-1) if self.config.gated else (self.in_proj(x), None)
        x = self.conv2d(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)  # views, channels stay last
        y = self.out_norm(self._scan(F.silu(x)))
        return self.out_proj(y if z is None else y * F.silu(z))

    def _scan(self, x: ChannelLast) -> ChannelLast:
        """The sum of the four routes over x (b, y, x, E)."""
        k, n = len(ROUTES), self.config.d_state
        u = x.flatten(1, 2)
        projected = F.linear(u, self.x_proj_weight.flatten(0, 1)).unflatten(2, (k, -1))
        dt, B, C = projected.split_with_sizes([self.dt_rank, n, n], dim=-1)
        y = selective_scan_directions(
            at_least_float32(u) if self.config.float32_scan else u,
            torch.einsum("blkr, kdr -> blkd", dt, self.dt_projs_weight),
            -torch.exp(at_least_float32(self.A_logs)).unflatten(0, (k, -1)),
            B,
            C,
            self.Ds.unflatten(0, (k, -1)),
            None,  # the gate comes after the norm
            self.dt_projs_bias,
            delta_softplus=True,
            directions=ROUTES,
            columns=x.shape[2],
        )
        return y.unflatten(1, x.shape[1:3])

    def extra_repr(self) -> str:
        return f"d_model={self.d_model}, {self.config}"


def _uniform(shape: tuple[int, ...], bound: float) -> Tensor:
    return torch.empty(shape).uniform_(-bound, bound)
