"""Checks of constructor arguments; a value that does not fit is a one-line ConfigError."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ssm_core.errors import ConfigError


def positive_int(owner: str, name: str, value: object) -> int:
    """Return `value` if it is an integer of at least 1."""
    return int_from(1, owner, name, value)


def int_from(least: int, owner: str, name: str, value: object) -> int:
    """Return `value` if it is an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{owner}: {name} is {value!r}, expected an integer of at least {least}")
    return value


def probability(owner: str, name: str, value: object) -> float:
    """Return `value` if it is a number in [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ConfigError(f"{owner}: {name} is {value!r}, expected a number in [0, 1)")
    return value


def one_of(owner: str, name: str, value: object, allowed: Sequence[str]) -> None:
    """Check that `value` is one of the `allowed` words."""
    if value not in allowed:
        words = " or ".join(repr(word) for word in allowed)
        raise ConfigError(f"{owner}: {name} is {value!r}, expected {words}")


def step_size_range(owner: str, dt_min: float, dt_max: float) -> None:
    """Check the range of the initial step sizes."""
    if not 0 < dt_min <= dt_max < math.inf:
        raise ConfigError(
            f"{owner}: dt_min is {dt_min!r} and dt_max {dt_max!r}, expected 0 < dt_min <= dt_max"
        )


def learning_rate(owner: str, name: str, value: float | None) -> None:
    """Check a learning rate; None stands for the global one."""
    if value is not None and not 0 <= value < math.inf:
        raise ConfigError(f"{owner}: {name} is {value!r}, expected a number from 0 or None")
