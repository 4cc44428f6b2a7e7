from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssm_core.errors import ConfigError, UnknownNameError
from ssm_prune.options import OneShotOptions, PruneOptions, RampedOptions
from ssm_prune.schedules import RAMPS, Schedule, make_schedule
from ssm_prune.steps import RunLength

LENGTH = RunLength(total_steps=1000, steps_per_epoch=100)


@pytest.mark.parametrize(
    ("ramp", "expected"),
    [
        ("cosine", [0, 0.117, 0.400, 0.683, 0.8]),
        ("cosine-quarter", [0, 0.061, 0.234, 0.494, 0.8]),
        ("cubic", [0, 0.463, 0.700, 0.788, 0.8]),
    ],
)
def test_ramps_have_the_published_values(ramp: str, expected: list[float]) -> None:
    schedule = Schedule(0, 4, 1, 0.8, RAMPS[ramp])
    assert [schedule.target(step) for step in range(5)] == pytest.approx(expected, abs=6e-4)


@given(
    ramp=st.sampled_from(sorted(RAMPS)),
    begin=st.integers(0, 50),
    length=st.integers(1, 90),
    every=st.integers(1, 120),
    sparsity=st.floats(0, 0.99),
)
def test_a_ramp_rises_and_lands_exactly(
    ramp: str, begin: int, length: int, every: int, sparsity: float
) -> None:
    schedule = Schedule(begin, begin + length, every, sparsity, RAMPS[ramp])
    targets = [schedule.target(step) for step in range(begin + length + 5)]
    assert targets == sorted(targets)
    assert targets[: begin + 1] == [0.0] * (begin + 1)
    assert targets[begin + length :] == [sparsity] * 5
    due = [step for step in range(200) if schedule.due(step)]
    regular = list(range(begin, begin + length, every))
    assert due == [*regular, begin + length]


def test_a_ramp_may_start_above_zero() -> None:
    schedule = Schedule(2, 6, 1, 0.8, RAMPS["cubic"], initial=0.3)
    expected = [0, 0, 0.3] + [0.3 + 0.5 * (1 - (1 - i / 4) ** 3) for i in (1, 2, 3)] + [0.8, 0.8]
    assert [schedule.target(step) for step in range(8)] == pytest.approx(expected)
    assert schedule.target(6) == 0.8
    assert [schedule.progress(step) for step in (0, 2, 3, 6, 9)] == [0, 0, 0.25, 1, 1]


def test_a_constant_sparsity_is_exact_from_the_first_step_on() -> None:
    options = RampedOptions(sparsity=0.7, initial_sparsity=0.7, begin=0, end=100)
    schedule = make_schedule(options, LENGTH, RAMPS)
    assert schedule.due(1)  # not only after `every` steps: masks first change after a step
    assert [schedule.target(step) for step in range(1, 200)] == [0.7] * 199


def test_a_one_shot_schedule_has_one_time() -> None:
    for begin, step in (("50%", 500), (0, 1)):
        schedule = make_schedule(OneShotOptions(begin=begin), LENGTH, RAMPS)
        assert [s for s in range(1, 1001) if schedule.due(s)] == [step]
        assert schedule.target(step) == 0.8


def test_defaults_suit_short_and_long_runs() -> None:
    def of(total: int) -> tuple[int, int, int]:
        schedule = make_schedule(PruneOptions(), RunLength(total, 10), RAMPS)
        return schedule.begin, schedule.end, schedule.every

    assert of(1) == (0, 1, 1)
    assert of(12) == (1, 9, 1)
    assert of(1000) == (50, 750, 35)
    assert of(100_000) == (5000, 75_000, 100)


def test_times_have_units() -> None:
    options = PruneOptions(begin="1ep", end="75%", every="25it")
    schedule = make_schedule(options, LENGTH, RAMPS)
    assert (schedule.begin, schedule.end, schedule.every) == (100, 750, 25)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (PruneOptions(begin=600, end=500), "prune.begin is 600 = step 600"),
        (PruneOptions(end="11ep"), "prune.end is 11ep = step 1100, but the run has 1000 steps"),
        (PruneOptions(every=0), "prune.every is 0 = 0 steps, expected 1 or more"),
        (PruneOptions(every="0.01%"), "prune.every is 0.01% = 0 steps"),
    ],
)
def test_impossible_times_are_refused(options: PruneOptions, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_schedule(options, LENGTH, RAMPS)


def test_unknown_ramp_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="'cubic'"):
        make_schedule(PruneOptions(ramp="cubik"), LENGTH, RAMPS)


@pytest.mark.parametrize("wrong", [lambda u: 1.5, lambda u: -0.1, lambda u: float("nan")])
def test_a_ramp_that_leaves_0_to_1_is_refused(wrong: Callable[[float], float]) -> None:
    with pytest.raises(ConfigError, match="expected 0 to 1"):
        Schedule(0, 10, 1, 0.5, wrong).target(5)


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, float("nan")])
def test_sparsity_outside_0_to_1_is_refused(sparsity: float) -> None:
    with pytest.raises(ConfigError, match=r"prune\.sparsity"):
        PruneOptions(sparsity=sparsity)
