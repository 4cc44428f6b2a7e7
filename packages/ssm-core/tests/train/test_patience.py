"""A run stops when its monitored metric has not been better for a while, killed or not."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssm_core.errors import ConfigError
from ssm_core.train import loop
from ssm_core.train.fit import fit
from ssm_core.train.folder import read_status
from ssm_core.train.loggers import read_metrics
from ssm_core.train.options import TrainerOptions
from ssm_core.train.patience import EarlyStopping

#: accuracy at the evaluation of step 2, 4, ...; the best is at step 6
VALUES = [0.3, 0.2, 0.5, 0.5, math.nan, 0.4, 0.6, 0.6, 0.6]
WORDS = ("--trainer.eval_every", "2", "--trainer.checkpoint_every", "1")


@pytest.fixture
def _scripted(monkeypatch):
    def evaluate(run):
        return {"eval/loss": 1.0, "eval/accuracy": VALUES[run.step // 2 - 1]}

    monkeypatch.setattr(loop, "evaluate", evaluate)


@pytest.mark.usefixtures("_scripted")
@pytest.mark.parametrize(("patience", "step"), [(1, 4), (2, 10), (3, 12), (4, 18), (0, 18)])
def test_stops_after_so_many_evaluations(host, config, tmp_path, patience, step):
    run = fit(host, config(*WORDS, "--trainer.patience", str(patience)), tmp_path, resume=False)
    assert run.step == step
    status = read_status(tmp_path)
    assert status["state"] == "finished"
    if step < 18:
        best = {1: 0.3}.get(patience, 0.5)
        assert status["stop_reason"] == (
            f"no better accuracy in {patience} evaluations (trainer.patience), best {best}"
        )
    else:
        assert status["stop_reason"] is None


@pytest.mark.usefixtures("_scripted")
@pytest.mark.parametrize("kill_at", range(1, 12))
def test_the_count_survives_a_kill(host, config, tmp_path, monkeypatch, kill_at):
    words, step = (*WORDS, "--trainer.patience", "3"), loop._step

    def deadly(run, batch, recorder):
        if run.step == kill_at:
            raise KeyboardInterrupt
        return step(run, batch, recorder)

    monkeypatch.setattr(loop, "_step", deadly)
    with pytest.raises(KeyboardInterrupt):
        fit(host, config(*words), tmp_path, resume=False)
    monkeypatch.setattr(loop, "_step", step)
    assert fit(host, config(*words), tmp_path, resume=True).step == 12
    steps = [step for step, _ in read_metrics(tmp_path / "metrics.csv")["eval/accuracy"]]
    assert steps == [2, 4, 6, 8, 10, 12]


@pytest.mark.usefixtures("_scripted")
def test_what_has_stopped_stays_stopped(host, config, tmp_path):
    """Killed after the last checkpoint, before it was marked as finished; more patience goes on."""
    fit(host, config(*WORDS, "--trainer.patience", "2"), tmp_path, resume=False)
    assert fit(host, config(*WORDS, "--trainer.patience", "2"), tmp_path, resume=True).step == 10
    assert fit(host, config(*WORDS, "--trainer.patience", "3"), tmp_path, resume=True).step == 12
    assert fit(host, config(*WORDS), tmp_path, resume=True).step == 18


def a_run():
    """What the count looks at, of a run."""
    return SimpleNamespace(level=0, task=SimpleNamespace(monitor="loss", higher_is_better=False))


@given(values=st.lists(st.integers(0, 5), min_size=1, max_size=12), patience=st.integers(1, 4))
def test_lower_is_better(values, patience):
    """Against the definition: the last `patience` losses are no lower than the lowest before."""
    stopping, run = EarlyStopping(patience), a_run()
    for end in range(1, len(values) + 1):
        stopping.ssm_eval_end(run, {"eval/loss": values[end - 1]})
        cut = max(0, end - patience)
        stopped = cut > 0 and min(values[cut:end]) >= min(values[:cut])
        assert (stopping.ssm_should_stop(run) is not None) == stopped
        if stopped:
            break


def test_every_level_counts_anew():
    stopping, run = EarlyStopping(2), a_run()
    for level, value in ((0, 1.0), (0, 2.0), (1, 5.0), (1, 6.0)):
        run.level = level
        stopping.ssm_eval_end(run, {"eval/loss": value})
        assert stopping.ssm_should_stop(run) is None
    stopping.ssm_eval_end(run, {"eval/loss": 6.0})
    assert "best 5" in stopping.ssm_should_stop(run)


def test_a_negative_patience_is_refused():
    with pytest.raises(ConfigError, match=r"trainer\.patience is -1, expected 0 or more"):
        TrainerOptions(patience=-1)
