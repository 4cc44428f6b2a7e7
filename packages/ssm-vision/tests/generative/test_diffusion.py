from __future__ import annotations

import pytest
import torch

from ssm_core import DataInfo
from ssm_core.specs import NoOptions
from ssm_vision.generative.diffusion import PARTS, Diffusion, times
from ssm_vision.generative.diffusion_model import DiffusionModel, DiffusionModelConfig

INFO = DataInfo((1, 4, 4), 5)


def small() -> DiffusionModel:
    torch.manual_seed(0)
    options = {"d_state": 2}
    return DiffusionModel(DiffusionModelConfig(2, 8, 1, mixer_options=options, refine=4), INFO)


def batch(size: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(size, 1, 4, 4), torch.arange(size) % 5


def test_evaluation_is_the_same_each_time_and_training_is_not() -> None:
    model, task, data = small(), Diffusion(NoOptions(), INFO), batch()
    model.train()
    assert task.loss(model, data)[0] != task.loss(model, data)[0]
    model.eval()
    before = torch.get_rng_state()
    assert torch.equal(task.loss(model, data)[0], task.loss(model, data)[0])
    assert torch.equal(torch.get_rng_state(), before)  # so that evaluating changes no training


def test_training_draws_from_torchs_generator() -> None:
    model, task, data = small().train(), Diffusion(NoOptions(), INFO), batch()
    losses = []
    for _ in range(2):
        torch.manual_seed(3)
        losses.append(task.loss(model, data)[0])
    assert torch.equal(*losses)


def test_loss_is_the_squared_error_of_the_prediction() -> None:
    """A model that predicts 0: the error is the mean square of the target, about 1 for noise."""
    model, task = small().eval(), Diffusion(NoOptions(), INFO)
    torch.nn.init.zeros_(model.conv2.weight)
    torch.nn.init.zeros_(model.conv2.bias)
    model.process.prediction = "epsilon"
    loss, outputs = task.loss(model, batch(512))
    assert 0.95 < loss.item() < 1.05
    torch.testing.assert_close(outputs[0].mean(), loss.detach())
    assert (outputs[1] >= 0).all()
    assert (outputs[1] < 1).all()


def test_metrics_tell_the_quarters_apart() -> None:
    task = Diffusion(NoOptions(), INFO)
    metrics = task.metrics()
    way = torch.tensor([0.0, 0.24, 0.3, 0.6, 0.8, 0.99])
    task.update(metrics, torch.stack([torch.tensor([1.0, 3, 5, 7, 9, 11]), way]), None)
    values = metrics.compute()
    assert [float(values[name]) for name in PARTS] == [2.0, 5.0, 7.0, 10.0]


@pytest.mark.parametrize("count", [0, 1, 7, 40])
def test_times_are_evenly_spread(count: int) -> None:
    seen = set()
    for seed in range(30):
        t = times(count, 20, torch.device("cpu"), torch.Generator().manual_seed(seed))
        assert t.shape == (count,)
        seen |= set(t.tolist())
        each = torch.bincount(t, minlength=21)[1:]
        assert each.sum() == count
        if count:
            assert each.max() - each.min() <= 1
    assert seen == (set(range(1, 21)) if count > 1 else seen)
    assert all(1 <= t <= 20 for t in seen)
