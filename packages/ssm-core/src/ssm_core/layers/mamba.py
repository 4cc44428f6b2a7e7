"""Mamba (S6): the mixer of Gu & Dao 2023, arXiv:2312.00752.

Parameter names, shapes and initial values are those of the official checkpoints. Left out on
purpose: options no published checkpoint uses (a constant initial dt_proj, a scale on the initial
step sizes).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

from ssm_core.layers.checks import positive_int
from ssm_core.layers.protocol import SequenceLayer
from ssm_core.layers.selective import (
    MambaState,
    SelectiveDirection,
    SelectiveSizes,
    make_direction,
    run_direction,
    run_directions,
    step_direction,
    step_sizes_of,
    zero_state,
)
from ssm_core.layers.step_size import StepSizeConfig
from ssm_core.linear import Linear
from ssm_core.shapes import Activations, Offsets, StepSizes


@dataclass(frozen=True)
class MambaConfig(StepSizeConfig):
    """Options of a Mamba mixer.

    Attributes:
        d_state: n, states per channel.
        d_conv: k, width of the causal convolution.
        expand: E / d, width inside the mixer.
        d_inner: E itself, for mixers that lost channels; None means expand * d.
        dt_rank: R, rank of the step-size projection; "auto" means ceil(d / 16).
        dt_min, dt_max: range of the initial step sizes (log-uniform), unit: steps.
        dt_init_floor: lower bound of the initial step sizes.
        bias: biases in in_proj and out_proj.
        conv_bias: bias in the convolution.

    Raises:
        ConfigError: a value out of range.
    """

    d_state: int = 16
    d_conv: int = 4
    expand: int = 2
    d_inner: int | None = None
    dt_rank: int | Literal["auto"] = "auto"
    bias: bool = False
    conv_bias: bool = True

    def __post_init__(self) -> None:
        owner = type(self).__name__
        for name in ("d_state", "d_conv", "expand"):
            positive_int(owner, name, getattr(self, name))
        if self.d_inner is not None:
            positive_int(owner, "d_inner (a number or None)", self.d_inner)
        if self.dt_rank != "auto":
            positive_int(owner, "dt_rank (a number or 'auto')", self.dt_rank)
        super().__post_init__()

    def sizes(self, d_model: int) -> SelectiveSizes:
        """Return the sizes of one direction for a model of width `d_model`."""
        rank = math.ceil(d_model / 16) if self.dt_rank == "auto" else self.dt_rank
        return SelectiveSizes(
            d_inner=self.expand * d_model if self.d_inner is None else self.d_inner,
            d_state=self.d_state,
            d_conv=self.d_conv,
            dt_rank=rank,
            dt_range=self.dt_range,
            conv_bias=self.conv_bias,
        )


class Mamba(SequenceLayer):
    """Causal Mamba mixer, (b, l, d) -> (b, l, d).

    Parameters, with E = d_inner: in_proj (2E, d; rows x, then z), conv1d (E, 1, k), x_proj
    (R + 2n, E; rows step size, B, C), dt_proj (E, R), A_log (E, n), D (E,), out_proj (d, E).

    The state holds the last k - 1 inputs of the convolution (b, E, k - 1) and the state of the scan
    (b, E, n), at least in float32 whatever the type of x. A single step that continues from a state
    (`step`, or a sequence of one step) and needs no gradient (under `torch.no_grad`) runs operators
    made for it.

    Cost: O(b l E (d + R + n + k)) time; a state of E (k - 1 + n) numbers per sequence, at any
    length.
    """

    state_type = MambaState

    def __init__(self, d_model: int, config: MambaConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or MambaConfig()
        self.d_model = positive_int("Mamba", "d_model", d_model)
        sizes = config.sizes(d_model)
        self.in_proj = Linear(d_model, 2 * sizes.d_inner, bias=config.bias)
        self.conv1d, self.x_proj, self.dt_proj, self.A_log, self.D = make_direction(sizes)
        self.out_proj = Linear(sizes.d_inner, d_model, bias=config.bias)

    def mix(
        self,
        x: Activations,
        state: MambaState | None,
        cu_seqlens: Offsets | None,
        return_state: bool,
    ) -> tuple[Activations, MambaState | None]:
        """Mix x (b, l, d) over its steps; see `SequenceLayer.forward`."""
        single = x.shape[1] == 1 and state is not None and cu_seqlens is None
        if single and not torch.is_grad_enabled():
            assert state is not None
            inner, z = self.in_proj(x.squeeze(1)).chunk(2, dim=-1)
            inner, state = step_direction(self._direction(), inner, z, state)
            return self.out_proj(inner).unsqueeze(1), state
        inner, z = self.in_proj(x).chunk(2, dim=-1)
        if state is None and not return_state:
            inner = run_directions((self._direction(),), (False,), inner, z, cu_seqlens)
            return self.out_proj(inner), None
        inner, state = run_direction(self._direction(), inner, z, state, cu_seqlens)
        return self.out_proj(inner), state

    def initial_state(self, batch: int) -> MambaState:
        """Return the zero state for `batch` sequences."""
        return zero_state(self._direction(), batch)

    def step_sizes(self, x: Activations) -> StepSizes:
        """Return the step sizes Delta (b, l, E) > 0 for x (b, l, d), unit: steps.

        A large step writes the input into the state and forgets the past, a small one keeps the
        past: a picture of Delta shows what the layer takes in.
        """
        self.check_call(x)
        inner, _ = self.in_proj(x).chunk(2, dim=-1)
        return step_sizes_of(self._direction(), inner)

    def _direction(self) -> SelectiveDirection:
        return SelectiveDirection(self.conv1d, self.x_proj, self.dt_proj, self.A_log, self.D)
