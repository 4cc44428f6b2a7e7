"""The range of initial step sizes: options that Mamba and Mamba-2 share."""

from __future__ import annotations

from dataclasses import dataclass

from ssm_core.errors import ConfigError
from ssm_core.layers.checks import step_size_range


@dataclass(frozen=True, kw_only=True)
class StepSizeConfig:
    """Where the step sizes start.

    Attributes:
        dt_min, dt_max: range of the initial step sizes (log-uniform), unit: steps.
        dt_init_floor: lower bound of the initial step sizes.

    Raises:
        ConfigError: a value out of range.
    """

    dt_min: float = 1e-3
    dt_max: float = 0.1
    dt_init_floor: float = 1e-4

    def __post_init__(self) -> None:
        owner = type(self).__name__
        step_size_range(owner, self.dt_min, self.dt_max)
        if not 0 < self.dt_init_floor <= self.dt_max:
            raise ConfigError(
                f"{owner}: dt_init_floor is {self.dt_init_floor!r}, "
                f"expected a number above 0 and at most dt_max = {self.dt_max!r}"
            )

    @property
    def dt_range(self) -> tuple[float, float, float]:
        """Least, greatest and floor of the initial step size."""
        return self.dt_min, self.dt_max, self.dt_init_floor
