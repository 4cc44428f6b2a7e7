"""S4: structured state space models run as convolutions, Gu, Goel & Re 2021, arXiv:2111.00396.

Parameter names, shapes and initial values are those of the official checkpoints.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ssm_core.layers.checks import positive_int
from ssm_core.layers.convolution_config import ConvolutionConfig
from ssm_core.layers.convolution_layer import ConvolutionLayer
from ssm_core.layers.s4_kernel import S4Kernel


@dataclass(frozen=True)
class S4Config(ConvolutionConfig):
    """Options of S4: those of `ConvolutionConfig`, and

    Attributes:
        l_max: steps that a new kernel is made for; longer sequences double it when they come, in
            place. None means 1 / dt_min, rounded up to a power of two: after so many steps most of
            what the slowest states took in has decayed, so that C is well determined by what is
            stored. Shorter sequences cost as much as l_max steps, apart from the FFT.
    """

    l_max: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.l_max is not None:
            positive_int("S4Config", "l_max", self.l_max)

    def kernel_length(self) -> int:
        """Return the steps that a new kernel is made for."""
        return self.l_max or 2 ** max(0, math.ceil(math.log2(1 / self.dt_min)))


class S4(ConvolutionLayer):
    """S4 with HiPPO-LegS, (b, l, d) -> (b, l, d); see `ConvolutionLayer`.

    The state matrices are diagonal plus low rank, discretised by the bilinear rule. Kernel
    parameters, with n = d_state / 2 pairs of states and S = n_ssm copies: inv_dt (d, 1), A_real and
    A_imag (S, n), B and P (1, S, n, 2), C (c, d, n, 2), and the buffer l_kernel; C holds
    C (1 - Abar^l_kernel), see `S4Kernel`.

    The state (b, d, n) is complex64, or complex128 in a model of float64.

    A compiled graph is for sequences of up to l_kernel steps, or, with states, of some 14000. An
    exported one is for any; those bounded by torch.export.Dim("l", max=l_kernel) are faster.

    Cost: O(c d n l_kernel + b c d l log l) time by FFT, O(b l d (N + c N)) and a part without l of
    O(d N^3 log l_kernel) as a recurrence, and O(b l c d^2) for the output map.
    """

    def __init__(self, d_model: int, config: S4Config | None = None) -> None:
        config = config or S4Config()
        d_model = positive_int("S4", "d_model", d_model)
        super().__init__(d_model, config, S4Kernel(d_model, config, config.kernel_length()))
