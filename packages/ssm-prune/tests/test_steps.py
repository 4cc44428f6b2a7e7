from __future__ import annotations

import pytest

from ssm_core.errors import ConfigError
from ssm_prune.steps import RunLength, parse_time

LENGTH = RunLength(total_steps=999, steps_per_epoch=37)


@pytest.mark.parametrize(
    ("text", "steps"),
    [("75%", 749), ("12.5%", 125), ("100it", 100), ("2ep", 74), ("1.5ep", 56), (7, 7), ("0", 0)],
)
def test_every_unit(text: int | str, steps: int) -> None:
    assert parse_time(text, LENGTH, "prune.end") == steps


@pytest.mark.parametrize("text", ["", "soon", "-5", "1.5", "1.5it", "5 %%", "5e2", "10epochs"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"prune\.end is .*expected a time such as 75%"):
        parse_time(text, LENGTH, "prune.end")
