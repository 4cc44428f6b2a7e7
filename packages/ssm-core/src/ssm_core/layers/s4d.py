"""S4D: diagonal state space models run as convolutions, Gu et al. 2022, arXiv:2206.11893.

Parameter names, shapes and initial values are those of the official checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass

from ssm_core.errors import ConfigError
from ssm_core.hippo import DIAGONAL_INITS, DiagonalInit
from ssm_core.layers.checks import one_of, positive_int
from ssm_core.layers.convolution_config import ConvolutionConfig
from ssm_core.layers.convolution_layer import ConvolutionLayer
from ssm_core.layers.discretize import DISCRETIZATIONS, Discretization
from ssm_core.layers.s4d_kernel import S4DKernel


@dataclass(frozen=True)
class S4DConfig(ConvolutionConfig):
    """Options of S4D: those of `ConvolutionConfig`, and

    Attributes:
        init: "legs", "lin", "inv" or "real", the initial eigenvalues; see
            `ssm_core.hippo.diagonal_spectrum`.
        disc: "zoh" or "bilinear", the rule from continuous to discrete time.

    With train_B False and init "lin" it is the minimal S4D of the paper's appendix, where B = 1.
    """

    init: DiagonalInit = "legs"
    disc: Discretization = "zoh"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("S4DConfig", "init", self.init, DIAGONAL_INITS)
        one_of("S4DConfig", "disc", self.disc, DISCRETIZATIONS)
        if self.init == "real" and self.real_transform == "sigmoid":
            raise ConfigError(
                "S4DConfig: real_transform is 'sigmoid' with init 'real', whose values reach "
                "d_state / 2, expected 'exp', 'softplus' or 'relu'"
            )


class S4D(ConvolutionLayer):
    """Diagonal S4, (b, l, d) -> (b, l, d); see `ConvolutionLayer`.

    Kernel parameters, with n = d_state / 2 states and S = n_ssm copies: inv_dt (d, 1), A_real and
    A_imag (S, n), B (1, S, n, 2), C (c, d, n, 2).

    The state (b, d, n) is complex64, or complex128 in a model of float64.

    Cost: O(c d n l + b c d l log l) time by FFT, O(b c d n l) as a recurrence, in double precision,
    and O(b l c d^2) for the output map. Every call, a single step too, discretises O(d n) numbers.
    """

    def __init__(self, d_model: int, config: S4DConfig | None = None) -> None:
        config = config or S4DConfig()
        d_model = positive_int("S4D", "d_model", d_model)
        super().__init__(d_model, config, S4DKernel(d_model, config, config.init, config.disc))
