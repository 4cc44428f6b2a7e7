"""Where throughput comes from."""

import pytest

from ssm_core.errors import SsmError
from ssm_core.train.report import throughput
from ssm_core.train.report.facts import facts_of
from ssm_core.train.report.throughput import Throughput, from_log, measure, median_seconds


def test_the_log_gives_the_median_epoch():
    assert from_log([0.5, 0.1, 0.2], 32, None) == Throughput(32 / 0.2, measured=False)


@pytest.mark.parametrize(
    ("seconds", "batch_size", "eval_every"), [([], 32, None), ([0.1], None, None), ([0.1], 32, 5)]
)
def test_a_log_that_says_nothing(seconds, batch_size, eval_every):
    assert from_log(seconds, batch_size, eval_every) is None


def test_a_run_of_whole_epochs_has_it_in_its_log(train, host, tmp_path):
    train("fit", "points-net")
    run = tmp_path / "runs/points-net-001"
    facts = facts_of(host, run, "x")
    seconds = sorted(value for _, value in facts.curves["time/step_s"])
    assert len(seconds) == 3
    assert facts.throughput is not None
    assert facts.throughput.examples_per_s == facts.config["loader"]["batch_size"] / seconds[1]
    assert not facts.throughput.measured


def test_measuring_warms_up_and_takes_the_median(monkeypatch):
    clock = iter([0.0, 1.0, 1.0, 1.5, 2.0, 4.0])  # three steps of 1, 0.5 and 2 seconds
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: next(clock))
    seen = []
    assert median_seconds(seen.append, iter(range(100))) == 1.0
    assert seen == [0, 1, 2, 3, 4]  # the first two are not timed


def test_measuring_ends_after_a_number_of_steps(monkeypatch):
    clock = iter(i * 1e-3 for i in range(1000))
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: next(clock))
    seen = []
    median_seconds(seen.append, iter(range(100)))
    assert len(seen) == throughput.WARM_UP + throughput.MOST_STEPS


def test_a_run_is_measured_and_left_as_it_was(train, host, tmp_path):
    train("fit", "points-net", "--trainer.max_steps", "2")
    run = tmp_path / "runs/points-net-001"
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    found = measure(host, run)
    assert found.measured
    assert found.examples_per_s > 0
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_a_run_without_weights_cannot_be_measured(train, host, tmp_path):
    train("fit", "points-net", "--trainer.max_steps", "2")
    run = tmp_path / "runs/points-net-001"
    (run / "model.safetensors").unlink()
    (run / "checkpoints/last.safetensors").unlink()
    with pytest.raises(SsmError, match="no such file"):
        measure(host, run)


@pytest.mark.parametrize(("rate", "text"), [(1234.6, "1,235"), (10.2, "10"), (0.123, "0.12")])
def test_as_text(rate, text):
    assert str(Throughput(rate, False)) == text
