"""The moving average of the weights: its equation, its use, and a run that keeps one."""

import pytest
import torch
from torch import nn

from ssm_core.errors import CheckpointError, ConfigError
from ssm_core.train.checkpoint import load_weights
from ssm_core.train.ema import MovingAverage
from ssm_core.train.evaluate import evaluate_run
from ssm_core.train.fit import fit
from ssm_core.train.folder import AVERAGE, WEIGHTS
from ssm_core.train.loggers import read_metrics

WORDS = ("--trainer.ema_decay", "0.8", "--trainer.checkpoint_every", "2")


def test_average_is_the_sum_written_out():
    torch.manual_seed(0)
    layer = nn.Linear(3, 2).double()
    average, history = MovingAverage(layer, 0.9), [layer.weight.detach().clone()]
    for _ in range(5):
        with torch.no_grad():
            layer.weight.add_(torch.randn(2, 3, dtype=torch.float64))
        history.append(layer.weight.detach().clone())
        average.update()
    expected = 0.9**5 * history[0] + sum(0.1 * 0.9 ** (5 - i) * history[i] for i in range(1, 6))
    torch.testing.assert_close(average.values["weight"], expected)


def test_half_precision_is_averaged_in_float32():
    layer = nn.Linear(1, 1, bias=False).bfloat16()
    nn.init.zeros_(layer.weight)
    average = MovingAverage(layer, 0.9999)
    nn.init.ones_(layer.weight)
    for _ in range(100):
        average.update()
    assert float(average.values["weight"]) == pytest.approx(1 - 0.9999**100, rel=1e-4)
    with average.in_use():
        assert layer.weight.dtype is torch.bfloat16


def test_in_use_lends_the_average_and_gives_the_weights_back():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    before = {name: t.clone() for name, t in model.state_dict().items()}
    average = MovingAverage(model, 0.5)
    for tensor in average.values.values():
        tensor.fill_(7.0)
    model[1].running_mean.fill_(3.0)
    with average.in_use() as lent:
        assert all(bool((p == 7).all()) for p in lent.parameters())
        assert float(lent[1].running_mean[0]) == 3.0  # buffers are those of the trained model
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name])


def test_tied_weights_are_averaged_once():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    average = MovingAverage(model, 0.5)
    with torch.no_grad():
        model[0].weight.add_(1.0)
    start = average.values["0.weight"].clone()
    average.update()
    torch.testing.assert_close(average.values["0.weight"], start + 0.5)
    assert "1.weight" not in average.values


def test_run_with_an_average_evaluates_and_saves_both(host, config, tmp_path):
    run = fit(host, config(*WORDS), tmp_path, resume=False)
    curves = read_metrics(tmp_path / "metrics.csv")
    assert [step for step, _ in curves["eval_ema/loss"]] == [6, 12, 18]
    assert curves["eval_ema/loss"] != curves["eval/loss"]
    raw, average = (load_weights(tmp_path / name)[0] for name in (WEIGHTS, AVERAGE))
    assert raw.keys() == average.keys()
    assert all(torch.equal(average[name], value) for name, value in run.ema.values.items())
    assert not torch.equal(raw["layers.0.weight"], average["layers.0.weight"])
    again = evaluate_run(host, tmp_path)
    assert again["eval_ema/loss"] == pytest.approx(curves["eval_ema/loss"][-1][1])
    assert again["eval/loss"] == pytest.approx(curves["eval/loss"][-1][1])


def test_the_average_does_not_change_the_training(host, config, tmp_path):
    for name, words in (("with", WORDS), ("without", ())):
        (tmp_path / name).mkdir()
        fit(host, config(*words), tmp_path / name, resume=False)
    raw = [load_weights(tmp_path / name / WEIGHTS)[0] for name in ("with", "without")]
    assert all(torch.equal(raw[0][key], raw[1][key]) for key in raw[0])
    assert not (tmp_path / "without" / AVERAGE).exists()


@pytest.mark.parametrize("kill_at", [1, 3, 7, 12, 17])
def test_average_resumes_bit_for_bit(host, config, tmp_path, monkeypatch, kill_at):
    from ssm_core.train import loop

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    fit(host, config(*WORDS), whole, resume=False)
    step = loop._step

    def deadly(run, batch, recorder):
        if run.step == kill_at:
            raise KeyboardInterrupt
        return step(run, batch, recorder)

    monkeypatch.setattr(loop, "_step", deadly)
    with pytest.raises(KeyboardInterrupt):
        fit(host, config(*WORDS), killed, resume=False)
    monkeypatch.setattr(loop, "_step", step)
    fit(host, config(*WORDS), killed, resume=True)
    first, second = (load_weights(folder / AVERAGE)[0] for folder in (whole, killed))
    assert all(torch.equal(first[name], second[name]) for name in first)
    curves = [read_metrics(folder / "metrics.csv")["eval_ema/loss"] for folder in (whole, killed)]
    assert curves[0] == curves[1]


def test_a_checkpoint_without_an_average_is_refused(host, config, tmp_path):
    fit(host, config("--trainer.max_steps", "4"), tmp_path, resume=False)
    with pytest.raises(CheckpointError, match="holds no moving average") as caught:
        fit(host, config(*WORDS), tmp_path, resume=True)
    assert "\n" not in str(caught.value)


def test_bad_decay(config):
    with pytest.raises(ConfigError, match=r"trainer\.ema_decay is 1\.0, expected null or a number"):
        config("--trainer.ema_decay", "1.0")
