"""After every step exactly round(s(t) N) weights are removed, with s(t) written down again here."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from ssm_prune.controller import Controller
from ssm_prune.loader import Method, PrunePlugins
from ssm_prune.methods import ssm_prune_methods
from ssm_prune.steps import RunLength

Started = tuple[nn.Sequential, torch.optim.Optimizer, Controller]
Make = Callable[[str, torch.dtype, dict[str, Any]], Started]
SPECS = {spec.name: spec for spec in ssm_prune_methods()}
BEGIN, END, EVERY, SPARSITY, STEPS = 2, 20, 4, 0.77, 25
RAMP = {"begin": BEGIN, "end": END, "every": EVERY, "sparsity": SPARSITY}
ONCE = {"begin": 7, "sparsity": SPARSITY}
#: method, options, initial sparsity, whether the ramp is cubic
RAMPED: list[tuple[str, dict[str, Any], float, bool]] = [
    ("dynamic-cosine", {}, 0.0, False),
    ("dynamic-cosine", {"regrow": "gradient"}, 0.0, False),
    ("dynamic-cosine", {"regrow": "gradient", "regrow_anneal": "constant"}, 0.3, False),
    ("dynamic-cosine", {"regrow": "gradient"}, SPARSITY, False),
    ("random", {}, 0.0, False),
    ("random", {}, 0.5, False),
    ("gradient", {"criterion": "taylor"}, 0.0, False),
    ("gradient", {"criterion": "grad"}, 0.0, False),
    ("gradient", {"criterion": "fisher"}, 0.0, False),
    ("gradient", {"criterion": "movement"}, 0.0, True),
]
ONE_SHOT: list[tuple[str, dict[str, Any]]] = [
    ("magnitude", {}),
    ("magnitude", {"score": "random"}),
    ("gradient", {"criterion": "snip", "snip_steps": 3}),
]


@pytest.fixture
def make(tied_model: Callable[[torch.dtype], nn.Sequential]) -> Make:
    """`make(method, dtype, options)`: a model, its optimizer and the method started on them."""

    def start(name: str, dtype: torch.dtype, options: dict[str, Any]) -> Started:
        model = tied_model(dtype)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        method = Method(SPECS[name], "ssm-prune", "0")
        plugins = PrunePlugins(load_entry_points=False)
        controller = Controller(method, SPECS[name].options(**options), plugins)
        controller.start(model, optimizer, RunLength(STEPS, 5), seed=0)
        return model, optimizer, controller

    return start


def removed_per_step(started: Started) -> list[int]:
    """How many weights are removed after each step; all of them are zero."""
    model, optimizer, controller = started
    dtype = model[1].weight.dtype
    x = torch.randn(6, 4).to(dtype)
    counts = []
    for step in range(1, STEPS + 1):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        controller.before_optimizer_step(step - 1)
        optimizer.step()
        controller.after_optimizer_step(step)
        dropped = ~controller.ctx.mask("1.weight")
        assert not model[1].weight[dropped].any()
        counts.append(int(dropped.sum()))
    return counts


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("name", "options", "initial", "cubic"), RAMPED)
def test_along_a_ramp(
    make: Make, name: str, options: dict[str, Any], initial: float, cubic: bool, dtype: torch.dtype
) -> None:
    given = {"initial_sparsity": initial} if initial else {}
    counts = removed_per_step(make(name, dtype, RAMP | options | given))
    expected, now = [], 0
    for step in range(1, STEPS + 1):
        u = (step - BEGIN) / (END - BEGIN)
        if step in range(BEGIN, END, EVERY) or step == END:
            rise = 1 - (1 - u) ** 3 if cubic else (1 - math.cos(math.pi * u)) / 2
            now = round((initial + (SPARSITY - initial) * rise) * 77)
        expected.append(now)
    assert counts == expected
    assert counts[-1] == round(SPARSITY * 77)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("name", "options"), ONE_SHOT)
def test_at_once(make: Make, name: str, options: dict[str, Any], dtype: torch.dtype) -> None:
    counts = removed_per_step(make(name, dtype, ONCE | options))
    assert counts == [0] * 6 + [round(SPARSITY * 77)] * (STEPS - 6)


def test_one_shot_magnitude_takes_the_smallest_and_keeps_them(make: Make) -> None:
    model, optimizer, controller = make("magnitude", torch.float32, ONCE)
    x = torch.randn(6, 4)
    weight, masks = model[1].weight, []
    for step in range(1, 12):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        controller.before_optimizer_step(step - 1)
        optimizer.step()
        before = weight.detach().flatten().abs().tolist()
        controller.after_optimizer_step(step)
        masks.append(controller.ctx.mask("1.weight"))
        if step == 7:
            lowest = sorted(range(77), key=lambda i: (before[i], i))[: round(SPARSITY * 77)]
            assert set((~masks[-1]).flatten().nonzero().flatten().tolist()) == set(lowest)
    assert all(torch.equal(mask, masks[6]) for mask in masks[6:])


def test_random_is_the_same_for_a_seed_and_unlike_magnitude(make: Make) -> None:
    masks = []
    for name in ("random", "random", "dynamic-cosine"):
        model, _, controller = make(name, torch.float32, RAMP | {"begin": 1, "end": 1})
        with torch.no_grad():
            model[1].weight.copy_(torch.arange(1.0, 78.0).view(11, 7))
        controller.after_optimizer_step(1)
        masks.append(controller.ctx.mask("1.weight"))
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_random_masks_only_grow(make: Make) -> None:
    _, _, controller = make("random", torch.float32, RAMP)
    old = controller.ctx.mask("1.weight")
    for step in range(1, STEPS + 1):
        controller.after_optimizer_step(step)
        new = controller.ctx.mask("1.weight")
        assert not (new & ~old).any()
        old = new
    assert int((~old).sum()) == round(SPARSITY * 77)
