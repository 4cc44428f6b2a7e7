"""Mamba-3 with one input and output per channel (SISO): Lahoti et al., arXiv:2603.15569.

The scan of Mamba-2 with a decay that depends on the input, states that turn in pairs (complex
numbers in disguise), and steps by the trapezoidal rule, which sees the step before as well; that
takes the place of the convolution. Parameter names and shapes are the official ones.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssm_core.init import exempt_from_reinit, exempt_from_weight_decay, init_step_size_bias
from ssm_core.layers.checks import positive_int
from ssm_core.layers.mamba3_config import Mamba3Config
from ssm_core.layers.protocol import SequenceLayer
from ssm_core.linear import Linear
from ssm_core.norm import GatedRMSNorm, RMSNorm, at_least_float32
from ssm_core.packing import pack, steps_of, unpack
from ssm_core.shapes import Activations, HeadScanState, HeadStepSizes, Inner, Offsets, StepMask
from ssm_kernels import selective_state_update, ssd_scan


class Mamba3State(NamedTuple):
    """State of a Mamba-3 mixer, enough to continue a sequence exactly."""

    angle: Tensor
    """(b, h, K): how far the pairs of states have turned, in [0, 2 pi)."""
    ssm: HeadScanState
    """(b, h, p, n): state of the scan."""
    k: Tensor
    """(b, h, n): the last B, normalised, shifted and turned."""
    v: Tensor
    """(b, h, p): the last input of the scan."""


class _Streams(NamedTuple):
    """What in_proj makes of the input, float32 or wider; the axis l may be missing."""

    z: Inner  # gate, (b, l, E)
    v: Tensor  # input of the scan, (b, l, h, p)
    B: Tensor  # normalised and shifted, (b, l, h, n)
    C: Tensor
    dt: HeadStepSizes
    rate: HeadStepSizes  # of the decay, -A > 0
    now: HeadStepSizes  # how much of a step takes its own input, the rest takes the one before
    turn: Tensor  # angle of this step, (b, l, h, K)


class Mamba3(SequenceLayer):
    """Causal Mamba-3 mixer, (b, l, d) -> (b, l, d).

    Parameters, with E = d_inner = h p: in_proj (2 E + 2 g n + 3 h + K, d; rows gate, input, B, C,
    step size, decay, trapezoid, angle), dt_bias (h,), D (h,), B_bias and C_bias (h, 1, n), B_norm
    and C_norm (n,), norm (E,) with `is_outproj_norm`, out_proj (d, E).

    S[t] = a S[t-1] + dt ((1 - now) a v[t-1] k[t-1]^T + now v[t] k[t]^T) with a = exp(A dt), and
    y[t] = (S[t] q[t] + D v[t]) silu(z[t]); k and q are B and C turned by the angles so far. Between
    the projections everything is float32 or wider, also under autocast.

    Cost: O(b l E (d + n + p)) time, two scans as products of matrices: one for v[t], one for
    v[t-1]. (A single scan with the weights of both would have to take away from y[t] what v[t]
    gives to the next step, and so let the future into the rounding of the past.) Packed sequences
    are padded to the longest to sum up their angles.
    """

    state_type = Mamba3State

    def __init__(self, d_model: int, config: Mamba3Config | None = None) -> None:
        super().__init__()
        self.config = config = config or Mamba3Config()
        self.d_model = positive_int("Mamba3", "d_model", d_model)
        self.sizes = config.sizes(d_model)
        d_inner, heads, _, angles = self.sizes
        n = config.d_state
        rows = 2 * d_inner + 2 * config.ngroups * n + 3 * heads + angles
        self.in_proj = Linear(d_model, rows, bias=False)
        self.dt_bias = nn.Parameter(torch.empty(heads, dtype=torch.float32))
        init_step_size_bias(self.dt_bias, *config.dt_range)
        exempt_from_reinit(exempt_from_weight_decay(self.dt_bias))
        self.D = exempt_from_weight_decay(nn.Parameter(torch.ones(heads, dtype=torch.float32)))
        self.B_bias = nn.Parameter(torch.ones(heads, 1, n))
        self.C_bias = nn.Parameter(torch.ones(heads, 1, n))
        self.B_norm = RMSNorm(n)
        self.C_norm = RMSNorm(n)
        self.norm: GatedRMSNorm | None = None
        if config.is_outproj_norm:
            self.norm = GatedRMSNorm(d_inner, heads, norm_before_gate=True)
        self.out_proj = Linear(d_inner, d_model, bias=False)

    def mix(
        self,
        x: Activations,
        state: Mamba3State | None,
        cu_seqlens: Offsets | None,
        return_state: bool,
    ) -> tuple[Activations, Mamba3State]:
        """Mix x (b, l, d) over its steps; see `SequenceLayer.forward`."""
        single = x.shape[1] == 1 and state is not None and cu_seqlens is None
        if state is None:
            state = self.initial_state(x.shape[0] if cu_seqlens is None else len(cu_seqlens) - 1)
        if single and not torch.is_grad_enabled():
            streams = self._project(x.squeeze(1))
            y, state = self._step(streams, _like(state, streams.v))
            return self._join(y, streams).unsqueeze(1), state
        streams = self._project(x)
        y, state = self._scan(streams, _like(state, streams.v), cu_seqlens)
        return self._join(y, streams), state

    def initial_state(self, batch: int) -> Mamba3State:
        """Return the zero state for `batch` sequences."""
        zeros = at_least_float32(self.D.new_zeros(()))
        (_, h, p, angles), n = self.sizes, self.config.d_state
        shapes = (h, angles), (h, p, n), (h, n), (h, p)
        return Mamba3State(*(zeros.new_zeros(batch, *shape) for shape in shapes))

    def step_sizes(self, x: Activations) -> HeadStepSizes:
        """Return the step sizes Delta (b, l, h) > 0 for x (b, l, d), unit: steps."""
        self.check_call(x)
        return self._project(x).dt

    def _project(self, x: Tensor) -> _Streams:
        (d_inner, h, p, angles), c = self.sizes, self.config
        groups = (c.ngroups, c.d_state)
        parts = [d_inner, d_inner, *[groups[0] * groups[1]] * 2, h, h, h, angles]
        projected = at_least_float32(self.in_proj(x)).split_with_sizes(parts, dim=-1)
        z, v, B, C, dt, decay, now, angle = projected
        dt = F.softplus(dt + at_least_float32(self.dt_bias))
        # 1 + decay, or 1 / (1 - decay) below zero: smooth, and never far from what was asked for
        below = 1 / (1 - decay.clamp(max=0))
        rate = torch.where(decay >= 0, 1 + decay, below).clamp(min=c.A_floor)
        B = at_least_float32(self.B_norm(B.unflatten(-1, groups)))
        C = at_least_float32(self.C_norm(C.unflatten(-1, groups)))
        repeats = h // c.ngroups
        return _Streams(
            z,
            v.unflatten(-1, (h, p)),
            B.repeat_interleave(repeats, dim=-2) + at_least_float32(self.B_bias).squeeze(1),
            C.repeat_interleave(repeats, dim=-2) + at_least_float32(self.C_bias).squeeze(1),
            dt,
            rate,
            now.sigmoid(),
            dt.unsqueeze(-1) * (math.pi * angle.tanh()).unsqueeze(-2),
        )

    def _scan(
        self, streams: _Streams, state: Mamba3State, cu_seqlens: Offsets | None
    ) -> tuple[Inner, Mamba3State]:
        _, v, B, C, dt, rate, now, turn = streams
        angle, last_angle = _angles(turn, state.angle, cu_seqlens)
        k, q = rotated(B, angle), rotated(C, angle)
        v_before, last_v = _delayed(v, state.v, cu_seqlens)
        k_before, last_k = _delayed(k, state.k, cu_seqlens)
        # The scan's step is its decay: its A is -1, and it multiplies what comes in by the step.
        step = rate * dt
        present = now / rate
        past = (1 - now) / rate * torch.exp(-step)
        y, final_state = ssd_scan(
            torch.cat([v * present.unsqueeze(-1), v_before * past.unsqueeze(-1)], dim=2),
            torch.cat([step, step], dim=2),
            step.new_full((2 * step.shape[2],), -1.0),
            torch.cat([k, k_before], dim=2),
            torch.cat([q, q], dim=2),
            initial_state=torch.cat([state.ssm, torch.zeros_like(state.ssm)], dim=1),
            return_final_state=True,
            cu_seqlens=cu_seqlens,
            chunk_size=self.config.chunk_size,
        )
        y = y.unflatten(2, (2, -1)).sum(dim=2) + at_least_float32(self.D).unsqueeze(-1) * v
        ssm = final_state.unflatten(1, (2, -1)).sum(dim=1)
        return y.flatten(-2), Mamba3State(last_angle, ssm, last_k, last_v)

    def _step(self, streams: _Streams, state: Mamba3State) -> tuple[Inner, Mamba3State]:
        """Do what `_scan` does for a single step, without a gradient and faster."""
        _, v, B, C, dt, rate, now, turn = streams
        angle = torch.remainder(state.angle + turn, 2 * math.pi)
        k, q = rotated(B, angle), rotated(C, angle)
        ssm, step = state.ssm.clone(), rate * dt
        past = state.v * ((1 - now) / rate * torch.exp(-step)).unsqueeze(-1)
        A = step.new_full((), -1.0).expand(ssm.shape[1:])
        selective_state_update(ssm, past, step.unsqueeze(-1).expand(v.shape), A, state.k, q)
        D = at_least_float32(self.D).unsqueeze(-1).expand(v.shape[1:])
        added = (now * dt).unsqueeze(-1).expand(v.shape)
        y = selective_state_update(ssm, v, added, torch.zeros_like(A), k, q, D)  # decays no more
        return y.flatten(-2), Mamba3State(angle, ssm, k, v)

    def _join(self, y: Inner, streams: _Streams) -> Activations:
        y = y * F.silu(streams.z) if self.norm is None else self.norm(y, streams.z)
        return self.out_proj(y.to(self.out_proj.weight.dtype))


def rotated(x: Tensor, angle: Tensor) -> Tensor:
    """Turn the first K pairs of neighbours in x (..., n) by angle (..., K)."""
    turning, rest = x.tensor_split([2 * angle.shape[-1]], dim=-1)
    a, b = turning.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = angle.cos(), angle.sin()
    return torch.cat(
        [torch.stack([cos * a - sin * b, sin * a + cos * b], -1).flatten(-2), rest], -1
    )


def _like(state: Mamba3State, v: Tensor) -> Mamba3State:
    return Mamba3State(*(part.to(v.dtype) for part in state))


def _angles(turn: Tensor, start: Tensor, cu_seqlens: Offsets | None) -> tuple[Tensor, Tensor]:
    """Sum up turn (b, l, h, K) from `start`: the angle at every step, and after the last.

    In float64: over thousands of steps float32 would lose what single steps keep.
    """
    steps: StepMask | None = None
    added = turn.double().flatten(2)
    if cu_seqlens is not None:  # a sum over all would let sequences into each other's rounding
        steps = steps_of(cu_seqlens, turn.device)
        added = unpack(added, steps)
    sums = torch.cat([start.double().flatten(1).unsqueeze(1), added], dim=1).cumsum(dim=1)
    sums = torch.remainder(sums, 2 * math.pi).to(turn.dtype)
    angle, last = sums[:, 1:], sums[:, -1]
    if steps is not None:
        angle = pack(angle, steps).x
        last = sums[torch.arange(len(sums), device=sums.device), steps.sum(dim=1)]
    return angle.unflatten(-1, turn.shape[2:]), last.unflatten(-1, turn.shape[2:])


def _delayed(x: Tensor, last: Tensor, cu_seqlens: Offsets | None) -> tuple[Tensor, Tensor]:
    """Return x (b, l, ...) one step later, `last` (b, ...) coming first, and what is last then."""
    if cu_seqlens is None:
        both = torch.cat([last.unsqueeze(1), x], dim=1)
        return both[:, :-1], both[:, -1]
    offsets = cu_seqlens.to(x.device, torch.int64)
    steps = torch.arange(x.shape[1], device=x.device)
    sequence = torch.searchsorted(offsets[1:].contiguous(), steps, right=True)
    both = torch.cat([x.new_zeros(1, *x.shape[2:]), x[0]], dim=0)
    rows = (slice(None), *[None] * (x.dim() - 2))
    first = (offsets[sequence] == steps)[rows]
    later = torch.where(first, last[sequence], both[:-1])
    empty = (offsets.diff() == 0)[rows]
    return later.unsqueeze(0), torch.where(empty, last, both[offsets[1:]])
