"""Mamba-2 (SSD): the mixer of Dao & Gu 2024, arXiv:2405.21060, section 7.

Parameter names, shapes and initial values are those of the official checkpoints.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssm_core.init import (
    exempt_from_reinit,
    exempt_from_weight_decay,
    init_step_size_bias,
    log_of,
)
from ssm_core.layers.checks import positive_int
from ssm_core.layers.mamba2_config import Mamba2Config
from ssm_core.layers.protocol import SequenceLayer
from ssm_core.layers.selective import own_copies
from ssm_core.linear import Linear
from ssm_core.norm import GatedRMSNorm, at_least_float32
from ssm_core.shapes import Activations, ConvState, HeadScanState, HeadStepSizes, Inner, Offsets
from ssm_kernels import (
    causal_conv1d,
    causal_conv1d_update,
    selective_state_update,
    ssd_scan,
)


class Mamba2State(NamedTuple):
    """State of a Mamba-2 mixer, enough to continue a sequence exactly."""

    conv: ConvState
    """(b, d_ssm + 2 g n, k - 1): the last inputs of the convolution, before bias and activation."""
    ssm: HeadScanState
    """(b, h, p, n): state of the scan."""


class _Streams(NamedTuple):
    """What in_proj makes of the input; the axis l may be missing."""

    z: Inner  # gate of the scan, (b, l, d_ssm)
    conv_input: Inner  # what becomes input, B and C of the scan, (b, l, d_ssm + 2 g n)
    dt: HeadStepSizes  # before bias and softplus
    mlp: Inner | None  # what does not go through the scan, (b, l, E - d_ssm)


class Mamba2(SequenceLayer):
    """Causal Mamba-2 mixer, (b, l, d) -> (b, l, d).

    Parameters, with E = d_inner, h heads of p channels (d_ssm = h p), g groups of heads and m =
    E - d_ssm: in_proj (2 E + 2 g n + h, d; rows m gate and m input of the MLP, then d_ssm gate,
    d_ssm input, B, C and h step sizes), conv1d (d_ssm + 2 g n, 1, k), dt_bias (h,), A_log (h,), D
    (h,) or (d_ssm,), norm (d_ssm,), out_proj (d, E), and if learnable init_states (h, p, n).

    The state holds the last k - 1 inputs of the convolution and the state of the scan, at least in
    float32 whatever the type of x. It starts as zero, or as `init_states`. A single step that
    continues from a state and needs no gradient (under `torch.no_grad`) runs operators made for it.

    Cost: O(b l (E d + d_ssm (n + p + k))) time, as products of matrices; a state of
    (d_ssm + 2 g n) (k - 1) + d_ssm n numbers per sequence, at any length.
    """

    state_type = Mamba2State

    def __init__(self, d_model: int, config: Mamba2Config | None = None) -> None:
        super().__init__()
        self.config = config = config or Mamba2Config()
        self.d_model = positive_int("Mamba2", "d_model", d_model)
        self.sizes = sizes = config.sizes(d_model)
        heads = sizes.heads

        rows = 2 * sizes.d_mlp + sizes.d_ssm + sizes.d_conv_inner + heads
        self.in_proj = Linear(d_model, rows, bias=config.bias)
        # Only the parameters are used, for the names and the shapes of the checkpoints.
        inner = sizes.d_conv_inner
        self.conv1d = nn.Conv1d(inner, inner, config.d_conv, groups=inner, bias=config.conv_bias)
        if config.conv_init is not None:
            nn.init.uniform_(self.conv1d.weight, -config.conv_init, config.conv_init)

        self.dt_bias = nn.Parameter(torch.empty(heads, dtype=torch.float32))
        init_step_size_bias(self.dt_bias, *config.dt_range)
        exempt_from_reinit(exempt_from_weight_decay(self.dt_bias))
        A = torch.empty(heads, dtype=torch.float32).uniform_(*config.A_init_range)
        self.A_log = exempt_from_weight_decay(nn.Parameter(log_of(A)))
        skips = sizes.d_ssm if config.D_has_hdim else heads
        self.D = exempt_from_weight_decay(nn.Parameter(torch.ones(skips, dtype=torch.float32)))
        self.init_states: nn.Parameter | None = None
        if config.learnable_init_states:
            zeros = torch.zeros(heads, sizes.headdim, config.d_state)
            self.init_states = exempt_from_weight_decay(nn.Parameter(zeros))

        self.norm: GatedRMSNorm | None = None
        if config.rmsnorm:
            self.norm = GatedRMSNorm(
                sizes.d_ssm,
                config.ngroups,
                config.norm_before_gate,
                config.norm_eps,
                config.norm_width,
            )
        self.out_proj = Linear(sizes.d_mlp + sizes.d_ssm, d_model, bias=config.bias)

    def mix(
        self,
        x: Activations,
        state: Mamba2State | None,
        cu_seqlens: Offsets | None,
        return_state: bool,
    ) -> tuple[Activations, Mamba2State]:
        """Mix x (b, l, d) over its steps; see `SequenceLayer.forward`."""
        single = x.shape[1] == 1 and state is not None and cu_seqlens is None
        if single and not torch.is_grad_enabled():
            assert state is not None
            streams = self._project(x.squeeze(1))
            y, state = self._step(streams, state)
            return self._join(y, streams).unsqueeze(1), state
        streams = self._project(x)
        if state is None and self.init_states is not None:
            state = self.initial_state(x.shape[0] if cu_seqlens is None else len(cu_seqlens) - 1)
        y, state = self._scan(streams, state, cu_seqlens)
        return self._join(y, streams), state

    def initial_state(self, batch: int) -> Mamba2State:
        """Return the state before the first step of `batch` sequences: zero, or `init_states`."""
        zeros = at_least_float32(self.conv1d.weight.new_zeros(()))
        conv = zeros.new_zeros(batch, self.sizes.d_conv_inner, self.config.d_conv - 1)
        matrix = (self.sizes.heads, self.sizes.headdim, self.config.d_state)
        if self.init_states is None:
            return Mamba2State(conv, zeros.new_zeros(batch, *matrix))
        return Mamba2State(conv, at_least_float32(self.init_states).expand(batch, *matrix))

    def step_sizes(self, x: Activations) -> HeadStepSizes:
        """Return the step sizes Delta (b, l, h) > 0 for x (b, l, d), unit: steps.

        A large step writes the input into the state and forgets the past, a small one keeps the
        past: a picture of Delta shows what the layer takes in.
        """
        self.check_call(x)
        return self._confined(self._project(x).dt)

    def _project(self, x: Tensor) -> _Streams:
        sizes = self.sizes
        parts = [2 * sizes.d_mlp, sizes.d_ssm, sizes.d_conv_inner, sizes.heads]
        mlp, z, xBC, dt = self.in_proj(x).split_with_sizes(parts, dim=-1)
        if xBC.dtype is torch.float16:  # the sums of the scan and their gradients leave its range
            xBC = xBC.float()
        if not sizes.d_mlp:
            return _Streams(z, xBC, dt, None)
        mlp_gate, mlp = mlp.chunk(2, dim=-1)
        return _Streams(z, xBC, dt, F.silu(mlp_gate) * mlp)

    def _join(self, y: Inner, streams: _Streams) -> Activations:
        if self.norm is not None:
            y = self.norm(y, streams.z)
        y = y.to(self.out_proj.weight.dtype)
        return self.out_proj(y if streams.mlp is None else torch.cat([streams.mlp, y], dim=-1))

    def _scan(
        self, streams: _Streams, state: Mamba2State | None, cu_seqlens: Offsets | None
    ) -> tuple[Inner, Mamba2State]:
        xBC, conv_state = causal_conv1d(
            streams.conv_input,
            self.conv1d.weight.squeeze(1),  # (E, 1, k) -> (E, k)
            self.conv1d.bias,
            activation="silu",
            initial_state=None if state is None else state.conv,
            return_final_state=True,
            cu_seqlens=cu_seqlens,
        )
        x, B, C = self._heads(xBC)
        y, ssm_state = ssd_scan(
            x,
            streams.dt,
            -torch.exp(at_least_float32(self.A_log)),
            B,
            C,
            self.D.view(x.shape[-2:]) if self.config.D_has_hdim else self.D,
            self._gate(streams, x),
            self.dt_bias,
            dt_softplus=True,
            dt_limit=self.config.dt_limit,
            initial_state=None if state is None else state.ssm,
            return_final_state=True,
            cu_seqlens=cu_seqlens,
            chunk_size=self.config.chunk_size,
        )
        return y.flatten(-2), Mamba2State(conv_state, ssm_state)

    def _step(self, streams: _Streams, state: Mamba2State) -> tuple[Inner, Mamba2State]:
        """Do what `_scan` does for a single step, without a gradient and faster."""
        state = Mamba2State(*own_copies(state, streams.conv_input))
        weight = self.conv1d.weight.squeeze(1)
        xBC = causal_conv1d_update(
            streams.conv_input, state.conv, weight, self.conv1d.bias, activation="silu"
        )
        x, B, C = self._heads(xBC)
        channels, matrix = x.shape[1:], state.ssm.shape[1:]
        # The operator confines no step sizes; 0 to infinity confines none either.
        dt, dt_bias = streams.dt, self.dt_bias.unsqueeze(-1).expand(channels)
        softplus = self.config.dt_limit == (0.0, math.inf)
        A = torch.exp(at_least_float32(self.A_log)).neg_()
        y = selective_state_update(
            state.ssm,
            x,
            (dt if softplus else self._confined(dt)).unsqueeze(-1).expand(x.shape),
            A.view(-1, 1, 1).expand(matrix),
            B,
            C,
            self.D.view(channels[0], -1).expand(channels),
            self._gate(streams, x),
            dt_bias if softplus else None,
            dt_softplus=softplus,
        )
        return y.flatten(-2), state

    def _heads(self, xBC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Split what was convolved into x (b, l, h, p), B (b, l, g, n) and C (b, l, g, n)."""
        groups = (self.config.ngroups, self.config.d_state)
        size = groups[0] * groups[1]
        x, B, C = xBC.split_with_sizes([self.sizes.d_ssm, size, size], dim=-1)
        x = x.unflatten(-1, (self.sizes.heads, self.sizes.headdim))
        return x, B.unflatten(-1, groups), C.unflatten(-1, groups)

    def _gate(self, streams: _Streams, x: Tensor) -> Tensor | None:
        """Return the gate of the scan itself: none where the norm gates."""
        return None if self.norm is not None else streams.z.unflatten(-1, x.shape[-2:])

    def _confined(self, dt: HeadStepSizes) -> HeadStepSizes:
        step = F.softplus(at_least_float32(dt) + at_least_float32(self.dt_bias))
        return step.clamp(*self.config.dt_limit)
