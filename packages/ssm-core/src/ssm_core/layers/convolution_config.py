"""Options that S4 and S4D have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ssm_core.errors import ConfigError
from ssm_core.layers.checks import learning_rate, one_of, positive_int, probability, step_size_range

DtTransform = Literal["exp", "softplus"]
RealTransform = Literal["exp", "softplus", "relu", "sigmoid"]


@dataclass(frozen=True)
class ConvolutionConfig:
    """Options that S4 and S4D have in common.

    Attributes:
        d_state: N, states per feature, even: pairs of which one is stored.
        channels: c, outputs per feature before the output map.
        bidirectional: read later steps too, by a second kernel; then there are no states.
        activation: "gelu" (exact) behind the convolution, or None.
        final_act: "glu" maps all channels to 2 d and gates one half by the other; None leaves the
            output map out (for one channel).
        dropout: probability of dropping a number before the output map.
        tie_dropout: drop the same features at all steps of a sequence.
        dt_min, dt_max: range of the initial step sizes (log-uniform).
        dt_tie: one step size per feature, not per state.
        dt_transform: what makes `inv_dt` positive.
        real_transform: what makes `A_real` positive.
        n_ssm: copies of A and B, shared by the features in turn; None means one per feature.
        train_B: learn B; otherwise it is a buffer.
        lr: learning rate of A and B (and the low-rank part); None means the global one. Without
            weight decay either way, as the step sizes.
        lr_dt: learning rate of the step sizes; None means the global one.
        lr_C: learning rate of C, with weight decay; None means the global one.

    Raises:
        ConfigError: a value out of range, or options that do not go together.
    """

    d_state: int = 64
    channels: int = 1
    bidirectional: bool = False
    activation: Literal["gelu"] | None = "gelu"
    final_act: Literal["glu"] | None = "glu"
    dropout: float = 0.0
    tie_dropout: bool = False
    dt_min: float = 1e-3
    dt_max: float = 0.1
    dt_tie: bool = True
    dt_transform: DtTransform = "exp"
    real_transform: RealTransform = "exp"
    n_ssm: int | None = None
    train_B: bool = True
    lr: float | None = 1e-3
    lr_dt: float | None = 1e-3
    lr_C: float | None = None

    def __post_init__(self) -> None:
        owner = type(self).__name__
        if positive_int(owner, "d_state", self.d_state) % 2:
            raise ConfigError(f"{owner}: d_state is {self.d_state}, expected an even number")
        positive_int(owner, "channels", self.channels)
        if self.n_ssm is not None:
            positive_int(owner, "n_ssm", self.n_ssm)
        probability(owner, "dropout", self.dropout)
        one_of(owner, "dt_transform", self.dt_transform, get_args(DtTransform))
        one_of(owner, "real_transform", self.real_transform, get_args(RealTransform))
        self._check_output(owner)
        step_size_range(owner, self.dt_min, self.dt_max)
        for name in ("lr", "lr_dt", "lr_C"):
            learning_rate(owner, name, getattr(self, name))

    def _check_output(self, owner: str) -> None:
        if self.activation not in ("gelu", None):
            raise ConfigError(
                f"{owner}: activation is {self.activation!r}, expected 'gelu' or None"
            )
        if self.final_act not in ("glu", None):
            raise ConfigError(f"{owner}: final_act is {self.final_act!r}, expected 'glu' or None")
        if self.final_act is None and self.channels != 1:
            raise ConfigError(
                f"{owner}: channels is {self.channels} without an output map, expected 1, "
                "or final_act 'glu'"
            )
