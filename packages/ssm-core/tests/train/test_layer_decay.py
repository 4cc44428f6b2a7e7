"""Learning rates that fall with the distance from the head."""

import pytest
from torch import nn

from ssm_core.errors import ConfigError
from ssm_core.init import learn_at
from ssm_core.train.layer_decay import own_rates
from ssm_core.train.optim import make_optimizer, make_scheduler, parameter_groups
from ssm_core.train.options import OptimOptions


class Stack(nn.Module):
    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
        learn_at(self.parts[0].bias, 0.02)

    def layer_of(self, name):
        return int(name.split(".")[1])


def rates_by_name(module, optimizer):
    names = {id(p): n for n, p in module.named_parameters()}
    return {names[id(p)]: g["lr"] for g in optimizer.param_groups for p in g["params"]}


def test_each_layer_learns_more_slowly_than_the_one_above():
    stack = Stack()
    optimizer = make_optimizer(stack, OptimOptions(lr=0.1, layer_decay=0.5, weight_decay=0.3))
    rates = rates_by_name(stack, optimizer)
    expected = {"parts.0.weight": 0.025, "parts.1.weight": 0.05, "parts.2.weight": 0.1}
    expected |= {"parts.0.bias": 0.005, "parts.1.bias": 0.05, "parts.2.bias": 0.1}
    assert rates == pytest.approx(expected)
    decays = {g["weight_decay"] for g in optimizer.param_groups}
    assert decays == {0.3, 0.0}
    assert optimizer.param_groups[0]["lr"] == 0.1  # what the log shows


def test_the_schedule_multiplies_all_rates_alike():
    options = OptimOptions(lr=0.1, layer_decay=0.5, schedule="cosine")
    stack = Stack()
    optimizer = make_optimizer(stack, options)
    scheduler = make_scheduler(optimizer, options, 4)
    before = rates_by_name(stack, optimizer)
    for _ in range(2):
        optimizer.step()
        scheduler.step()
    after = rates_by_name(stack, optimizer)
    assert {n: after[n] / before[n] for n in before} == pytest.approx(dict.fromkeys(before, 0.5))


def test_without_layer_decay_the_groups_are_the_usual_ones():
    stack = Stack()
    usual, asked = (parameter_groups(stack, 0.1, *rest) for rest in ((), (own_rates,)))
    assert [g.get("lr") for g in usual] == [g.get("lr") for g in asked] == [None, None, 0.02]


def test_a_model_without_an_order_is_refused():
    with pytest.raises(ConfigError, match="Linear does not say the order of its layers") as caught:
        make_optimizer(nn.Linear(2, 2), OptimOptions(layer_decay=0.9))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [0.0, 1.5, -1.0])
def test_bad_layer_decay(value):
    with pytest.raises(ConfigError, match=rf"optim\.layer_decay is {value}, expected null or"):
        OptimOptions(layer_decay=value)
