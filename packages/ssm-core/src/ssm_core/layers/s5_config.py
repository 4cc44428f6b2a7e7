"""Options of an S5 layer and their checks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from ssm_core.errors import ConfigError
from ssm_core.layers.checks import learning_rate, one_of, positive_int, probability, step_size_range
from ssm_core.layers.discretize import DISCRETIZATIONS, Discretization
from ssm_core.layers.s5_init import C_INITS, CInit

Activation = Literal["half_glu1", "half_glu2", "full_glu", "gelu"]
ACTIVATIONS: tuple[str, ...] = get_args(Activation)


@dataclass(frozen=True)
class S5Config:
    """Options of an S5 layer.

    Attributes:
        d_state: size of the state (`ssm_size` in the papers' code).
        blocks: copies of HiPPO-LegS of size d_state / blocks that the model starts from.
        conj_sym: store one state of each conjugate pair, p = d_state / 2, and read twice the real
            part; otherwise p = d_state.
        clip_eigs: keep the real parts of the eigenvalues at most -1e-4, so that no state can grow.
        bidirectional: a second scan from the last step to the first, with the same Lambda and B.
        discretization: "zoh" or "bilinear".
        C_init: "trunc_standard_normal", "lecun_normal" or "complex_normal", see `s5_init`.
        dt_min, dt_max: range of the initial step sizes (log-uniform).
        step_rescale: multiplies the step sizes; s for sequences sampled s times more coarsely than
            those trained on.
        activation: what follows the model, with g = gelu(y), tanh approximation: "half_glu1"
            g sigmoid(out2(g)), "half_glu2" y sigmoid(out2(g)), "full_glu" out1(g) sigmoid(out2(g)),
            "gelu" g, None y.
        dropout: probability of dropping a feature of a whole sequence in training, behind the gelu
            and behind the gate.
        lr: learning rate of Lambda, B and the step sizes, which have no weight decay; None means
            the global one.

    Raises:
        ConfigError: a value out of range, or a d_state that blocks do not divide into whole (with
            conj_sym even) sizes.
    """

    d_state: int = 64
    blocks: int = 1
    conj_sym: bool = True
    clip_eigs: bool = False
    bidirectional: bool = False
    discretization: Discretization = "zoh"
    C_init: CInit = "trunc_standard_normal"
    dt_min: float = 1e-3
    dt_max: float = 0.1
    step_rescale: float = 1.0
    activation: Activation | None = "half_glu1"
    dropout: float = 0.0
    lr: float | None = 1e-3

    def __post_init__(self) -> None:
        owner = type(self).__name__
        positive_int(owner, "d_state", self.d_state)
        positive_int(owner, "blocks", self.blocks)
        even = 2 if self.conj_sym else 1
        if self.d_state % (even * self.blocks):
            multiple = "2 * blocks (conj_sym)" if self.conj_sym else "blocks"
            raise ConfigError(
                f"{owner}: d_state is {self.d_state} with {self.blocks} blocks, "
                f"expected a multiple of {multiple} = {even * self.blocks}"
            )
        one_of(owner, "discretization", self.discretization, DISCRETIZATIONS)
        one_of(owner, "C_init", self.C_init, C_INITS)
        if self.activation is not None:
            one_of(owner, "activation", self.activation, ACTIVATIONS)
        probability(owner, "dropout", self.dropout)
        step_size_range(owner, self.dt_min, self.dt_max)
        learning_rate(owner, "lr", self.lr)
        if not 0 < self.step_rescale < math.inf:
            raise ConfigError(
                f"{owner}: step_rescale is {self.step_rescale!r}, expected a number above 0"
            )
