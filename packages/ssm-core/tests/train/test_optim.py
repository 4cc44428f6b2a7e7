import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ssm_core import Mamba
from ssm_core.init import learn_at
from ssm_core.train.optim import lr_factor, make_optimizer, make_scheduler, parameter_groups
from ssm_core.train.options import OptimOptions


def test_parameter_groups_spare_vectors_and_marked_parameters():
    layer = Mamba(16)
    decay, plain = parameter_groups(layer, 0.1)
    names = {id(p): n for n, p in layer.named_parameters()}
    spared = {names[id(p)] for p in plain["params"]}
    assert {"A_log", "D", "dt_proj.bias", "conv1d.bias"} <= spared
    assert {names[id(p)] for p in decay["params"]} == set(names.values()) - spared
    assert decay["weight_decay"] == 0.1
    assert plain["weight_decay"] == 0.0


def test_parameter_groups_leave_out_frozen_parameters():
    layer = nn.Linear(2, 2)
    layer.weight.requires_grad_(False)
    decay, plain = parameter_groups(layer, 0.1)
    assert decay["params"] == []
    assert len(plain["params"]) == 1


def test_parameters_may_have_their_own_learning_rate_and_decay():
    """The schedule multiplies all learning rates alike."""
    layer = nn.ParameterDict({name: torch.ones(2, 2) for name in ("A", "dt", "C", "D", "W")})
    learn_at(layer["A"], 1e-3)
    learn_at(layer["dt"], 1e-3)
    learn_at(layer["C"], 2e-3, weight_decay=None)
    learn_at(layer["D"], None)
    groups = parameter_groups(layer, 0.1)
    names = {id(p): n for n, p in layer.named_parameters()}
    found = [({names[id(p)] for p in g["params"]}, g.get("lr"), g["weight_decay"]) for g in groups]
    assert found == [
        ({"W"}, None, 0.1),
        ({"D"}, None, 0.0),
        ({"A", "dt"}, 1e-3, 0.0),
        ({"C"}, 2e-3, 0.1),
    ]
    options = OptimOptions(lr=0.01, schedule="cosine")
    optimizer = make_optimizer(layer, options)
    scheduler = make_scheduler(optimizer, options, 4)
    for _ in range(2):
        optimizer.step()
        scheduler.step()
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([5e-3, 5e-3, 5e-4, 1e-3])


@given(warmup=st.integers(0, 20), total=st.integers(1, 100), final=st.floats(0, 1))
def test_lr_factor_stays_between_final_and_one(warmup, total, final):
    options = OptimOptions(schedule="cosine", warmup_steps=warmup, final_lr_frac=final)
    factor = lr_factor(options, total)
    values = [factor(step) for step in range(total + 1)]
    assert all(0 < v <= 1 + 1e-12 for v in values[:warmup])
    assert all(final - 1e-12 <= v <= 1 + 1e-12 for v in values[warmup:])
    if total > warmup:
        assert factor(total) == pytest.approx(final)
        assert factor(warmup) == pytest.approx(1.0)


def test_lr_factor_cooldown_stays_at_the_end_of_the_cosine():
    options = OptimOptions(schedule="cosine", final_lr_frac=0.1, warmup_steps=2, cooldown_steps=5)
    factor = lr_factor(options, 20)
    assert factor(14) > 0.1
    assert [factor(step) for step in range(15, 21)] == pytest.approx([0.1] * 6)


def test_lr_factor_constant_after_warmup():
    factor = lr_factor(OptimOptions(warmup_steps=3), 10)
    assert [factor(s) for s in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]


@pytest.mark.parametrize("name", ["adamw", "lamb", "sgd"])
def test_make_optimizer_steps_downhill(name):
    torch.manual_seed(0)
    layer = nn.Linear(3, 1)
    options = OptimOptions(name=name, lr=0.05)
    optimizer = make_optimizer(layer, options)
    scheduler = make_scheduler(optimizer, options, 20)
    x = torch.randn(32, 3)
    losses = []
    for _ in range(20):
        loss = (layer(x) - x.sum(1, keepdim=True)).square().mean()
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    assert losses[-1] < 0.5 * losses[0]
