"""Bidirectional Mamba: the mixer of Vision Mamba (Vim, "v2"), Zhu et al. 2024, arXiv:2401.09417.

A forward and a backward direction with parameters of their own share one input and one output
projection. Parameter names are those of the Vim checkpoints: `_b` marks the backward direction, and
its A is called `A_b_log`.

Initial values follow Vim, with one exception: dt_proj_b.bias gets the same log-uniform step sizes
as the forward direction. Vim leaves it at 0, so that every backward channel starts with a step of
softplus(0) = 0.69 and its slowest state keeps half of its value per step: the backward direction
starts without memory beyond a few steps. Published checkpoints overwrite the value anyway.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from ssm_core.errors import ConfigError
from ssm_core.layers.checks import positive_int
from ssm_core.layers.mamba import MambaConfig
from ssm_core.layers.protocol import LayerState, SequenceLayer
from ssm_core.layers.selective import (
    SelectiveDirection,
    make_direction,
    run_directions,
    step_sizes_of,
)
from ssm_core.linear import Linear
from ssm_core.shapes import Activations, Offsets, StepSizes


@dataclass(frozen=True)
class BiMambaConfig(MambaConfig):
    """Options of a bidirectional Mamba mixer: those of `MambaConfig`, and

    Attributes:
        divide_out: halve the sum of both directions, as in the published models.
        layer_scale: initial value of a learned factor per channel of the output (`gamma`); None
            means no such factor. Source: Touvron et al. 2021, arXiv:2103.17239, section 2.

    Raises:
        ConfigError: a value out of range.
    """

    divide_out: bool = True
    layer_scale: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layer_scale is not None and not math.isfinite(self.layer_scale):
            raise ConfigError(
                f"{type(self).__name__}: layer_scale is {self.layer_scale!r}, expected a finite "
                "number or None"
            )


class BiMamba(SequenceLayer):
    """Bidirectional Mamba mixer, (b, l, d) -> (b, l, d). Not causal: it has no state and no step.

    y = out_proj((forward(x, z) + backward(x, z)) / 2) with x, z = in_proj(input); each direction is
    gated by silu(z) and the backward one runs from the last step to the first. With `layer_scale`
    y is multiplied by gamma (d,).

    Cost: twice a Mamba mixer but for the shared projections.
    """

    causal = False

    def __init__(self, d_model: int, config: BiMambaConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or BiMambaConfig()
        self.d_model = positive_int("BiMamba", "d_model", d_model)
        sizes = config.sizes(d_model)
        self.in_proj = Linear(d_model, 2 * sizes.d_inner, bias=config.bias)
        self.conv1d, self.x_proj, self.dt_proj, self.A_log, self.D = make_direction(sizes)
        self.conv1d_b, self.x_proj_b, self.dt_proj_b, self.A_b_log, self.D_b = make_direction(sizes)
        self.out_proj = Linear(sizes.d_inner, d_model, bias=config.bias)
        self.gamma: nn.Parameter | None = None
        if config.layer_scale is not None:
            self.gamma = nn.Parameter(torch.full((d_model,), float(config.layer_scale)))

    def mix(
        self,
        x: Activations,
        state: LayerState | None,
        cu_seqlens: Offsets | None,
        return_state: bool,
    ) -> tuple[Activations, None]:
        """Mix x (b, l, d) over its steps in both directions; see `SequenceLayer.forward`."""
        inner, z = self.in_proj(x).chunk(2, dim=-1)
        directions = self._forward_direction(), self._backward_direction()
        factor = 0.5 if self.config.divide_out else 1.0
        y = run_directions(directions, (False, True), inner, z, cu_seqlens, factor)
        y = self.out_proj(y)
        return (y if self.gamma is None else y * self.gamma.to(y.dtype)), None

    def step_sizes(self, x: Activations) -> StepSizes:
        """Return the step sizes Delta (b, l, E) > 0 for x (b, l, d): the mean of both directions.

        One tensor as for `Mamba.step_sizes`, so that the same picture can be drawn for both; unit:
        steps.
        """
        self.check_call(x)
        inner, _ = self.in_proj(x).chunk(2, dim=-1)
        forward = step_sizes_of(self._forward_direction(), inner)
        return (forward + step_sizes_of(self._backward_direction(), inner, reverse=True)) * 0.5

    def _forward_direction(self) -> SelectiveDirection:
        return SelectiveDirection(self.conv1d, self.x_proj, self.dt_proj, self.A_log, self.D)

    def _backward_direction(self) -> SelectiveDirection:
        return SelectiveDirection(
            self.conv1d_b, self.x_proj_b, self.dt_proj_b, self.A_b_log, self.D_b
        )
