"""What S4 and S4D have in common: a long convolution or its recurrence, then a gated output map."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssm_core.layers.convolution_config import ConvolutionConfig
from ssm_core.layers.dropout import drop_features
from ssm_core.layers.protocol import SequenceLayer
from ssm_core.layers.state_space_kernel import StateSpaceKernel
from ssm_core.linear import Linear
from ssm_core.norm import at_least_float32
from ssm_core.packing import pack, steps_of, unpack
from ssm_core.shapes import Activations, DiagonalState, Offsets


class ConvolutionState(NamedTuple):
    """State of S4 and S4D, enough to continue a sequence exactly."""

    ssm: DiagonalState
    """(b, h, n), complex: one of each conjugate pair of states."""


class ConvolutionLayer(SequenceLayer):
    """Base of S4 and S4D, (b, l, d) -> (b, l, d), d = h features.

    y = glu(output_linear(dropout(gelu(K * x + D x)))), * the convolution with the kernels of
    `kernel`. Without states asked for it runs by FFT over whole sequences (packed ones are padded
    to the longest), otherwise as the recurrence. All before `output_linear` is in float32 at least,
    also under autocast.

    Parameters: D (c, d), those of the kernel, output_linear.0 (2 d, c d) with bias.
    """

    state_type = ConvolutionState

    def __init__(self, d_model: int, config: ConvolutionConfig, kernel: StateSpaceKernel) -> None:
        super().__init__()
        self.config = config
        self.d_model = d_model
        self.causal = not config.bidirectional
        self.D = nn.Parameter(torch.randn(config.channels, d_model))
        self.kernel = kernel
        self.output_linear: nn.Module = nn.Identity()
        if config.final_act == "glu":
            self.output_linear = nn.Sequential(
                Linear(config.channels * d_model, 2 * d_model), nn.GLU(dim=-1)
            )

    def mix(
        self,
        x: Activations,
        state: ConvolutionState | None,
        cu_seqlens: Offsets | None,
        return_state: bool,
    ) -> tuple[Activations, ConvolutionState | None]:
        """Mix x (b, l, d) over its steps; see `SequenceLayer.forward`."""
        final_state = None
        u = at_least_float32(x)
        # autocast touches none of the operations down to `y.to(x.dtype)`
        if state is None and not return_state:
            y = self._convolve(u, cu_seqlens)
        else:
            y, ssm = self.kernel.scan(u, None if state is None else state.ssm, cu_seqlens)
            final_state = ConvolutionState(ssm)
        y = (y + at_least_float32(self.D) * u.unsqueeze(2)).flatten(2)
        if self.config.activation == "gelu":
            y = F.gelu(y)
        y = self._drop(y, cu_seqlens)
        return self.output_linear(y.to(x.dtype)), final_state

    def initial_state(self, batch: int) -> ConvolutionState:
        """Return the zero state for `batch` sequences."""
        self._require_causal("initial_state")
        return ConvolutionState(self.kernel.zero_state(batch))

    def _convolve(self, u: Activations, cu_seqlens: Offsets | None) -> Tensor:
        """Return (b, l, c, h) for u (b, l, h)."""
        if cu_seqlens is not None:
            steps = steps_of(cu_seqlens, u.device)
            y = self._convolve(unpack(u, steps), None)
            return pack(y.flatten(2), steps).x.unflatten(2, y.shape[2:])
        return self.kernel.convolve(u)

    def _drop(self, y: Activations, cu_seqlens: Offsets | None) -> Activations:
        p = self.config.dropout
        if self.config.tie_dropout:
            return drop_features(y, p, self.training, cu_seqlens)
        return F.dropout(y, p, self.training)
