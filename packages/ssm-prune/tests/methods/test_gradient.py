"""Scores from gradients, on a loss whose gradient is known: sum of a (w - c)^2 / 2."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from ssm_core.errors import ConfigError
from ssm_prune import MethodSpec
from ssm_prune.controller import Controller
from ssm_prune.loader import Method, PrunePlugins
from ssm_prune.methods.gradient import Gradient, GradientOptions
from ssm_prune.steps import RunLength

SPEC = MethodSpec("gradient", Gradient, "", GradientOptions)
ROWS, COLUMNS, RATE, STEPS = 5, 7, 0.2, 6
#: criterion -> the score of one weight from its values and gradients at steps 0, 1, ...
ORACLES: dict[str, Callable[[list[float], list[float]], float]] = {
    "taylor": lambda w, g: running_mean([abs(x * y) for x, y in zip(w, g, strict=True)]),
    "grad": lambda w, g: running_mean([abs(y) for y in g]),
    "fisher": lambda w, g: running_mean([x * x * y * y for x, y in zip(w, g, strict=True)]),
    "movement": lambda w, g: -sum(x * y for x, y in zip(w, g, strict=True)),
    "snip": lambda w, g: abs(sum(x * y for x, y in zip(w[-3:], g[-3:], strict=True))),
}


def running_mean(values: list[float]) -> float:
    mean = 0.0
    for value in values:
        mean = 0.7 * mean + 0.3 * value
    return mean


def build(dtype: torch.dtype, **options: Any) -> tuple[nn.Sequential, Controller, Any]:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(COLUMNS, ROWS), nn.Linear(2, 2)).to(dtype)
    with torch.no_grad():
        model[1].weight.copy_(torch.randn(ROWS, COLUMNS, dtype=dtype))
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    plugins = PrunePlugins(load_entry_points=False)
    controller = Controller(Method(SPEC, "x", "0"), GradientOptions(**options), plugins)
    controller.start(model, optimizer, RunLength(20, 5), seed=0)
    return model, controller, optimizer


@pytest.mark.parametrize("criterion", sorted(ORACLES))
def test_what_is_removed_is_lowest_by_the_formula(criterion: str) -> None:
    model, controller, optimizer = build(
        torch.float64,
        criterion=criterion,
        sparsity=0.4,
        beta=0.7,
        snip_steps=3,
        begin=STEPS,
        end=STEPS,
    )
    weight = model[1].weight
    generator = torch.Generator().manual_seed(2)
    a = torch.rand(ROWS, COLUMNS, generator=generator, dtype=torch.float64) * 3
    c = torch.randn(ROWS, COLUMNS, generator=generator, dtype=torch.float64)
    values = weight.flatten().tolist()
    history: list[tuple[list[float], list[float]]] = [([], []) for _ in values]
    for step in range(STEPS):
        for i, (value, a_i, c_i) in enumerate(zip(values, a.flatten(), c.flatten(), strict=True)):
            gradient = float(a_i) * (value - float(c_i))
            history[i][0].append(value)
            history[i][1].append(gradient)
            values[i] = value - RATE * gradient
        optimizer.zero_grad()
        (a * (weight - c) ** 2 / 2).sum().backward()
        controller.before_optimizer_step(step)
        optimizer.step()
        controller.after_optimizer_step(step + 1)
    scores = [ORACLES[criterion](w, g) for w, g in history]
    count = round(0.4 * len(scores))
    expected = set(sorted(range(len(scores)), key=scores.__getitem__)[:count])
    removed = (weight == 0).flatten().nonzero().flatten().tolist()
    assert set(removed) == expected
    # the case can tell the criteria apart: no other formula removes the same weights
    others = {
        name: set(sorted(range(len(scores)), key=lambda i: score(*history[i]))[:count])
        for name, score in ORACLES.items()
        if name != criterion
    }
    assert all(other != expected for other in others.values())


def test_a_missing_gradient_counts_as_zero() -> None:
    model, controller, _ = build(torch.float32, begin=2, end=2, sparsity=0.4, beta=0.5)
    weight = model[1].weight
    weight.grad = torch.ones_like(weight)
    controller.before_optimizer_step(0)
    first = controller.pruner.state_dict()["scores"]["1.weight"].clone()
    weight.grad = None
    controller.before_optimizer_step(1)
    second = controller.pruner.state_dict()["scores"]["1.weight"]
    assert torch.equal(first, weight.detach().abs() / 2)
    assert torch.equal(second, first / 2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_small_products_survive_half_precision(dtype: torch.dtype) -> None:
    model, controller, _ = build(dtype, begin=2, end=2, sparsity=0.4, criterion="fisher")
    weight = model[1].weight
    weight.grad = torch.full_like(weight, 1e-4)
    controller.before_optimizer_step(0)
    scores = controller.pruner.state_dict()["scores"]["1.weight"]
    assert scores.dtype == torch.float32
    assert bool((scores > 0).all())
    assert float(scores.max()) < 1e-7  # float16 would have rounded these to 0


def test_memory_is_given_back_at_the_end_and_a_later_resume_works() -> None:
    model, controller, _ = build(torch.float32, begin=1, end=2, every=1, sparsity=0.4)
    for step in range(3):
        model[1].weight.grad = torch.ones(ROWS, COLUMNS)
        controller.before_optimizer_step(step)
        controller.after_optimizer_step(step + 1)
        assert bool(controller.pruner.state_dict()["scores"]) == (step == 0)
    _, again, _ = build(torch.float32, begin=1, end=2, every=1, sparsity=0.4)
    again.load_state_dict(controller.state_dict())
    again.before_optimizer_step(3)
    again.after_optimizer_step(4)
    assert again.achieved == controller.achieved > 0


def test_defaults_depend_on_the_criterion() -> None:
    def of(**options: Any) -> tuple[Any, ...]:
        made = GradientOptions(**options)
        return made.begin, made.end, made.ramp

    assert of() == ("5%", "75%", "cosine")
    assert of(criterion="movement") == ("5%", "75%", "cubic")
    assert of(criterion="movement", ramp="cosine") == ("5%", "75%", "cosine")
    assert of(criterion="snip") == ("1it", "1it", "cosine")
    assert of(criterion="snip", snip_steps=8) == ("8it", "8it", "cosine")
    assert of(criterion="snip", begin="2ep") == ("2ep", "2ep", "cosine")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": 1.0}, r"prune\.beta is 1\.0, expected from 0 to below 1"),
        ({"beta": math.nan}, r"prune\.beta is nan"),
        ({"snip_steps": 0}, r"prune\.snip_steps is 0, expected 1 or more"),
        ({"criterion": "snip", "end": "75%"}, r"prune\.end and prune\.every have no meaning"),
        ({"criterion": "snip", "every": 2}, r"prune\.end and prune\.every have no meaning"),
    ],
)
def test_options_without_meaning_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GradientOptions(**options)


def test_snip_needs_time_for_its_steps() -> None:
    message = r"prune\.begin is 2 = step 2, expected at least prune\.snip_steps \(4\)"
    with pytest.raises(ConfigError, match=message):
        build(torch.float32, criterion="snip", begin=2, snip_steps=4)
