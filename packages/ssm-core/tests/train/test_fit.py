"""A run from start to end, and every way it can be cut short."""

import json
import shutil

import pytest
import torch

from ssm_core.errors import CheckpointError, SsmError
from ssm_core.train.checkpoint import load_state, load_weights
from ssm_core.train.fit import fit
from ssm_core.train.folder import LAST, WEIGHTS, read_status
from ssm_core.train.loggers import read_metrics
from ssm_core.train.restore import load_run


def numbers(folder):
    """Everything logged except times."""
    curves = read_metrics(folder / "metrics.csv")
    return {name: points for name, points in curves.items() if not name.startswith("time/")}


def same_weights(a, b):
    first, second = load_weights(a / WEIGHTS)[0], load_weights(b / WEIGHTS)[0]
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_fit_leaves_a_complete_folder(host, config, tmp_path):
    run = fit(host, config("--count", "counter"), tmp_path, resume=False)
    assert (run.step, run.epoch, run.total_steps) == (18, 3, 18)
    status = read_status(tmp_path)
    assert status["state"] == "finished"
    assert status["parameters"] == sum(p.numel() for p in run.module.parameters())
    curves = numbers(tmp_path)
    assert [step for step, _ in curves["train/loss"]] == list(range(2, 19, 2))
    assert [step for step, _ in curves["eval/accuracy"]] == [6, 12, 18]
    assert curves["counter/steps"][-1] == (18, 18.0)
    assert json.loads((tmp_path / "info.json").read_text())["labels"] == ["minus", "plus"]
    assert json.loads((tmp_path / "versions.json").read_text())["torch"] == torch.__version__
    assert list((tmp_path / "tensorboard").iterdir())
    assert load_weights(tmp_path / WEIGHTS)[1]["recipe"] == "points-net"


def test_fit_is_reproducible_and_depends_on_the_seed(host, config, tmp_path):
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        (tmp_path / name).mkdir()
        fit(host, config("--trainer.seed", seed), tmp_path / name, resume=False)
    assert numbers(tmp_path / "a") == numbers(tmp_path / "b")
    assert same_weights(tmp_path / "a", tmp_path / "b")
    assert not same_weights(tmp_path / "a", tmp_path / "c")


class Killed(BaseException):
    """Stands for a kill: nothing in the engine may catch it and go on."""


@pytest.mark.parametrize("kill_at", range(1, 18))
def test_fit_resumes_bit_for_bit_after_a_kill_at_any_step(
    host, config, tmp_path, monkeypatch, kill_at
):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    words = ("--count", "counter", "--trainer.checkpoint_every", "2")
    fit(host, config(*words), whole, resume=False)

    from ssm_core.train import loop

    step = loop._step

    def deadly(run, batch, recorder):
        if run.step == kill_at:
            raise Killed
        return step(run, batch, recorder)

    monkeypatch.setattr(loop, "_step", deadly)
    with pytest.raises(Killed):
        fit(host, config(*words), killed, resume=False)
    monkeypatch.setattr(loop, "_step", step)
    torch.manual_seed(999)  # a fresh process would not have the old generators either
    run = fit(host, config(*words), killed, resume=True)
    assert run.step == 18
    assert numbers(killed) == numbers(whole)
    assert same_weights(killed, whole)


def test_resume_without_a_checkpoint_starts_anew(host, config, tmp_path):
    assert fit(host, config(), tmp_path, resume=True).step == 18


def test_resume_of_a_damaged_checkpoint_touches_nothing(host, config, tmp_path):
    fit(host, config(), tmp_path, resume=False)
    path = tmp_path / LAST
    path.write_bytes(path.read_bytes()[:-20])
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(CheckpointError, match=r"last\.safetensors: damaged"):
        fit(host, config(), tmp_path, resume=True)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_resume_of_another_model_names_the_file(host, config, tmp_path):
    fit(host, config(), tmp_path, resume=False)
    with pytest.raises(CheckpointError, match=r"last\.safetensors: does not fit this run"):
        fit(host, config("--model.width", "5"), tmp_path, resume=True)


def test_nan_loss_stops_and_keeps_the_last_good_checkpoint(host, config, tmp_path, monkeypatch):
    from ssm_core.train import loop

    step = loop._step

    def poisoned(run, batch, recorder):
        if run.step == 9:
            batch = [batch[0] * float("nan"), batch[1]]
        return step(run, batch, recorder)

    monkeypatch.setattr(loop, "_step", poisoned)
    with pytest.raises(SsmError, match="the training loss became nan before step"):
        fit(host, config(), tmp_path, resume=False)
    state = load_state(tmp_path / LAST)
    assert state["step"] <= 9
    assert all(bool(torch.isfinite(t).all()) for t in state["module"].values())
    assert read_status(tmp_path)["state"] == "failed"


def test_max_steps_ends_within_an_epoch(host, config, tmp_path):
    run = fit(host, config("--trainer.max_steps", "8"), tmp_path, resume=False)
    assert (run.step, run.epoch) == (8, 1)
    assert [step for step, _ in numbers(tmp_path)["eval/loss"]] == [6, 8]


def test_eval_every_counts_steps(host, config, tmp_path):
    words = ("--trainer.eval_every", "5", "--trainer.eval_batches", "1")
    fit(host, config(*words), tmp_path, resume=False)
    assert [step for step, _ in numbers(tmp_path)["eval/loss"]] == [5, 10, 15, 18]


def test_no_training_examples(host, config, tmp_path):
    with pytest.raises(SsmError, match="'points' has no training examples"):
        fit(host, config("--data.size", "0"), tmp_path, resume=False)


def test_load_run_gives_the_trained_model(host, config, tmp_path):
    run = fit(host, config(), tmp_path, resume=False)
    restored = load_run(tmp_path, host=host)
    x = torch.randn(4, 2)
    run.module.eval()
    assert not restored.module.training
    assert torch.equal(restored.module(x), run.module(x))
    (tmp_path / WEIGHTS).unlink()
    assert torch.equal(load_run(tmp_path, host=host).module(x), run.module(x))
    shutil.rmtree(tmp_path / "checkpoints")
    with pytest.raises(CheckpointError, match="no such file"):
        load_run(tmp_path, host=host)


def test_precision_bf16_trains(host, config, tmp_path):
    fit(host, config("--trainer.precision", "bf16-mixed"), tmp_path, resume=False)
    losses = [value for _, value in numbers(tmp_path)["train/loss"]]
    assert all(0 < value < 2 for value in losses)


def test_load_run_does_not_need_the_extensions(host, config, tmp_path):
    fit(host, config("--count", "counter"), tmp_path, resume=False)
    assert "count:" in (tmp_path / "config.yaml").read_text()
    assert load_run(tmp_path, host=host).config.specs.keys() == {"model", "data", "task"}


def test_accumulated_gradients_are_those_of_the_whole_batch(host, config, tmp_path):
    """Parts of 6, 5 and 5 examples: unequal, so that a plain mean of means would differ."""
    words = ("--model.dropout", "0", "--optim.name", "sgd", "--optim.lr", "0.1")
    for name, count in (("whole", "1"), ("parts", "3")):
        (tmp_path / name).mkdir()
        fit(host, config(*words, "--loader.accumulate", count), tmp_path / name, resume=False)
    first, second = (load_weights(tmp_path / name / WEIGHTS)[0] for name in ("whole", "parts"))
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-5, atol=1e-6)
    losses = [numbers(tmp_path / name)["train/loss"] for name in ("whole", "parts")]
    assert [v for _, v in losses[0]] == pytest.approx([v for _, v in losses[1]], rel=1e-5)


@pytest.mark.parametrize("extra", [("--optim.name", "lamb"), ("--loader.accumulate", "2")])
def test_other_ways_to_step_resume_bit_for_bit(host, config, tmp_path, monkeypatch, extra):
    from ssm_core.train import loop

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    fit(host, config(*extra), whole, resume=False)
    step = loop._step

    def deadly(run, batch, recorder):
        if run.step == 11:
            raise Killed
        return step(run, batch, recorder)

    monkeypatch.setattr(loop, "_step", deadly)
    with pytest.raises(Killed):
        fit(host, config(*extra), killed, resume=False)
    monkeypatch.setattr(loop, "_step", step)
    fit(host, config(*extra), killed, resume=True)
    assert numbers(killed) == numbers(whole)
    assert same_weights(killed, whole)
