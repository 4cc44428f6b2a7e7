"""The mixer of MambaVision: a scan over half of the channels, a convolution over the other half.

    x, z = in_proj(input)                      halves of E = expand d channels
    x, z = silu(conv_x(x)), silu(conv_z(z))    depthwise, over neighbours on both sides
    dt, B, C = x_proj(x)
    y = scan(x, softplus(dt_proj(dt) + dt_proj.bias), A, B, C) + D x
    output = out_proj([y, z])                  no gate: z is the branch without a state

The scan runs once, from the first step to the last; the convolution looks ahead, so the layer is
not causal. The bias of dt_proj enters twice, in dt_proj and before the softplus, as in the
published models.

Source: Hatamizadeh & Kautz 2025, arXiv:2407.08083, section 3.2 and Algorithm 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssm_core.errors import ConfigError
from ssm_core.layers.checks import positive_int
from ssm_core.layers.protocol import LayerState, SequenceLayer
from ssm_core.linear import Linear
from ssm_core.norm import at_least_float32
from ssm_core.shapes import Activations, Inner, Offsets, StepSizes
from ssm_core.units import BlockAdapter
from ssm_kernels import causal_conv1d, selective_scan
from ssm_vision.models.removable import mambavision_mixer_units

#: widest convolution of the operator
MAX_WIDTH = 8
LINEAR_STD = 0.02


def make_linear(n_inputs: int, n_outputs: int, bias: bool = True) -> nn.Linear:
    """Return a linear map as every one of MambaVision starts: N(0, 0.02^2), bias 0."""
    linear = Linear(n_inputs, n_outputs, bias=bias)
    nn.init.normal_(linear.weight, std=LINEAR_STD)
    if bias:
        nn.init.zeros_(linear.bias)
    return linear


@dataclass(frozen=True)
class MambaVisionMixerConfig:
    """Options of MambaVision's mixer; the defaults are those of all published models.

    Attributes:
        d_state: n, states per channel.
        d_conv: k, width of both convolutions, 1 to 8; of an even width the middle is left of the
            centre: one step less is seen before than after.
        expand: E / d, width inside the mixer; E must be even.
        d_inner: E itself, for mixers that lost channels; None means expand * d.
        dt_rank: R, rank of the step-size projection; "auto" means ceil(d / 16).

    Raises:
        ConfigError: a value out of range.
    """

    d_state: int = 8
    d_conv: int = 3
    expand: int = 1
    d_inner: int | None = None
    dt_rank: int | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        owner = type(self).__name__
        for name in ("d_state", "d_conv", "expand"):
            positive_int(owner, name, getattr(self, name))
        if self.d_conv > MAX_WIDTH:
            raise ConfigError(f"{owner}: d_conv is {self.d_conv}, expected 1 to {MAX_WIDTH}")
        if self.d_inner is not None:
            positive_int(owner, "d_inner (a number or None)", self.d_inner)
        if self.dt_rank != "auto":
            positive_int(owner, "dt_rank (a number or 'auto')", self.dt_rank)


class MambaVisionMixer(SequenceLayer):
    """MambaVision's mixer, (b, l, d) -> (b, l, d). Not causal: it has no state and no step.

    Parameters: in_proj (E, d), conv1d_x and conv1d_z (E/2, 1, k), x_proj (R + 2n, E/2),
    dt_proj (E/2, R) with bias, A_log (E/2, n), D (E/2), out_proj (d, E). They start as in the
    published training: dt_proj.bias at 0, so that every step size is softplus(0) = 0.69.

    Cost: O(b l (d E + E n)) time.
    """

    causal = False

    def __init__(self, d_model: int, config: MambaVisionMixerConfig | None = None) -> None:
        """Make the layer.

        Raises:
            ConfigError: E is odd.
        """
        super().__init__()
        self.config = config = config or MambaVisionMixerConfig()
        self.d_model = positive_int("MambaVisionMixer", "d_model", d_model)
        d_inner = config.expand * d_model if config.d_inner is None else config.d_inner
        if d_inner % 2:
            name = "expand * d_model" if config.d_inner is None else "d_inner"
            raise ConfigError(
                f"MambaVisionMixer: {name} is {d_inner}, expected an even number: the channels are "
                "halved"
            )
        half, n = d_inner // 2, config.d_state
        rank = math.ceil(d_model / 16) if config.dt_rank == "auto" else config.dt_rank
        self.in_proj = make_linear(d_model, d_inner, bias=False)
        # Only the parameters of these modules are used, for the names and shapes of the checkpoints
        self.conv1d_x = nn.Conv1d(half, half, config.d_conv, groups=half, bias=False)
        self.conv1d_z = nn.Conv1d(half, half, config.d_conv, groups=half, bias=False)
        self.x_proj = make_linear(half, rank + 2 * n, bias=False)
        self.dt_proj = make_linear(rank, half)
        A_row = torch.arange(1, n + 1, dtype=torch.float32).log()
        self.A_log = nn.Parameter(A_row.repeat(half, 1))
        self.D = nn.Parameter(torch.ones(half))
        self.out_proj = make_linear(d_inner, d_model, bias=False)

    def mix(
        self,
        x: Activations,
        state: LayerState | None,
        cu_seqlens: Offsets | None,
        return_state: bool,
    ) -> tuple[Activations, None]:
        """Mix x (b, l, d) over its steps; see `SequenceLayer.forward`."""
        inner, z = self._convolve(x, cu_seqlens).chunk(2, dim=-1)
        delta, B, C = self._project(inner)
        y = selective_scan(
            inner,
            delta,
            -torch.exp(at_least_float32(self.A_log)),
            B,
            C,
            self.D,
            delta_bias=self._step_bias(),
            delta_softplus=True,
            cu_seqlens=cu_seqlens,
        )
        assert isinstance(y, Tensor)
        return self.out_proj(torch.cat([y, z], dim=-1)), None

    def removable_units(self) -> BlockAdapter:
        """Channels of both branches, equally many of each, and states."""
        return mambavision_mixer_units(self)

    def step_sizes(self, x: Activations) -> StepSizes:
        """Return the step sizes Delta (b, l, E/2) > 0 for x (b, l, d), in float32; unit: steps."""
        self.check_call(x)
        inner, _ = self._convolve(x, None).chunk(2, dim=-1)
        delta, _, _ = self._project(inner)
        return F.softplus(at_least_float32(delta) + self._step_bias())

    def _convolve(self, x: Activations, cu_seqlens: Offsets | None) -> Inner:
        """Project and convolve: [x, z] (b, l, E), both halves in one call."""
        taps = torch.cat([self.conv1d_x.weight, self.conv1d_z.weight]).squeeze(1)  # (E, k)
        return centred_conv1d(self.in_proj(x), taps, cu_seqlens)

    def _project(self, inner: Inner) -> tuple[Tensor, Tensor, Tensor]:
        """Return the step size before bias and softplus (b, l, E/2), B and C (b, l, n)."""
        rank, n = self.dt_proj.weight.shape[1], self.config.d_state
        dt, B, C = self.x_proj(inner).split_with_sizes([rank, n, n], dim=-1)
        return F.linear(dt, self.dt_proj.weight), B, C

    def _step_bias(self) -> Tensor:
        # in float32 and in the scan, both times
        return 2 * at_least_float32(self.dt_proj.bias)


def centred_conv1d(x: Inner, weight: Tensor, cu_seqlens: Offsets | None = None) -> Inner:
    """Return y[t] = silu(sum_j weight[j] x[t - (k-1)//2 + j]), zeros around each sequence.

    Args:
        x: (b, l, d), or (1, l, d) with `cu_seqlens`.
        weight: (d, k).
        cu_seqlens: offsets of packed sequences; no tap reaches into another one.

    Cost: O(b l d k), and one copy of x (k > 1).
    """
    k = weight.shape[1]
    before = (k - 1) // 2
    after = k - 1 - before
    if cu_seqlens is None:
        # The causal operator, delayed: step t + after has seen all that step t of y may see.
        y = causal_conv1d(F.pad(x, (0, 0, 0, after)) if after else x, weight, activation="silu")
        assert isinstance(y, Tensor)
        return y[:, after:]
    past = causal_conv1d(x, weight[:, : before + 1], cu_seqlens=cu_seqlens)
    taps = weight[:, before + 1 :].flip(1)  # reversed, the operator's last tap is the present
    future = causal_conv1d(x, F.pad(taps, (0, 1)), reverse=True, cu_seqlens=cu_seqlens)
    assert isinstance(past, Tensor)
    assert isinstance(future, Tensor)
    return F.silu(past + future)
