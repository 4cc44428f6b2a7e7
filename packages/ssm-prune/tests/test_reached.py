"""Has the promised sparsity been reached? Also when the units are no longer there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ssm_prune import NotPrunedError
from ssm_prune.reached import check_reached


def ended(left: int, rounding: int, promised: float = 0.5) -> Any:
    return SimpleNamespace(
        pruner=SimpleNamespace(promised=lambda ctx: promised),
        ctx=SimpleNamespace(total=left),
        method=SimpleNamespace(spec=SimpleNamespace(name="early-bird")),
        units=SimpleNamespace(kind="channels", total=left, rounding=left),
        removals=[{"left": left, "of": 32, "rounding": rounding, "asked": promised}],
        achieved=1 - left / 32,
        history=[{"step": 1, "distances": []}, {"step": 2}],
        vetoes=[],
    )


@pytest.mark.parametrize(("left", "rounding"), [(16, 0), (12, 0), (20, 4)])
def test_enough_was_taken_out(left: int, rounding: int) -> None:
    assert check_reached(ended(left, rounding)) is None


@pytest.mark.parametrize(("left", "rounding"), [(32, 0), (17, 0), (21, 4)])
def test_too_little_was_taken_out(left: int, rounding: int) -> None:
    with pytest.raises(NotPrunedError, match=r"asked to remove 50.0% of 32 prunable channels") as e:
        check_reached(ended(left, rounding))
    assert "changed masks 1 times, no proposal was stopped" in str(e.value)
    assert check_reached(ended(left, rounding, promised=0.0)) is None
