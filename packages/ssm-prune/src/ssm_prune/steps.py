"""Times of a run written by people: `75%`, `100it`, `2ep` or a number of steps."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ssm_core.errors import ConfigError

_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(%|it|ep|)")


@dataclass(frozen=True)
class RunLength:
    """How long a run is, in optimizer steps."""

    total_steps: int
    steps_per_epoch: int


def parse_time(value: int | str, length: RunLength, key: str) -> int:
    """Turn a time into a number of optimizer steps, rounded to the nearest.

    Args:
        value: `75%` of the run, `100it`, `2ep` (may be fractions), or plain steps.
        key: the option's name, for the error.
    Raises:
        ConfigError: the text is none of these.
    """
    match = _TIME.fullmatch(str(value).strip())
    if match is None or (match[2] in ("", "it") and "." in match[1]):
        raise ConfigError(
            f"{key} is {value!r}, expected a time such as 75%, 100it, 2ep or a number of steps"
        )
    number, unit = float(match[1]), match[2]
    if unit == "%":
        return round(number / 100 * length.total_steps)
    if unit == "ep":
        return round(number * length.steps_per_epoch)
    return int(match[1])
