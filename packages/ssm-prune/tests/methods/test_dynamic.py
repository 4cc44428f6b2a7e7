"""Regrowth: who leaves, who comes back, and from where it starts."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ssm_core.errors import ConfigError
from ssm_prune.masks import MaskStore
from ssm_prune.methods import ssm_prune_methods
from ssm_prune.methods.dynamic import DynamicOptions, exchange
from ssm_prune.testing import STEPS, ToyRun

SPEC = next(spec for spec in ssm_prune_methods() if spec.name == "dynamic-cosine")
VALUES = st.sampled_from([0.0, 0.5, 0.5, 1.0, 3.0, math.inf])


@st.composite
def exchanges(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, Tensor, float]:
    size = draw(st.integers(1, 12))
    dtype = draw(st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]))

    def row(values: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(values, min_size=size, max_size=size))

    kept = torch.tensor(row(st.booleans()))
    keep = kept & torch.tensor(row(st.booleans()))  # removed weights stay so at first
    score, gradient = torch.tensor(row(VALUES), dtype=dtype), torch.tensor(row(VALUES)).to(dtype)
    return keep, kept, score, gradient, draw(st.floats(0, 1))


@settings(max_examples=300, deadline=None)
@given(case=exchanges())
def test_an_exchange_equals_the_sorted_oracle(
    case: tuple[Tensor, Tensor, Tensor, Tensor, float],
) -> None:
    keep, kept, score, gradient, share = case
    live = [i for i in range(len(keep)) if keep[i]]
    gone = [i for i in range(len(keep)) if not kept[i]]
    count = min(math.floor(share * len(live)), len(gone))
    leaves = sorted(live, key=lambda i: (float(score[i]), i))[:count]
    # not finite counts as nothing
    size = {i: float(gradient[i]) if math.isfinite(gradient[i]) else 0.0 for i in gone}
    comes = sorted(gone, key=lambda i: (-size[i], i))[:count]
    expected = (set(live) - set(leaves)) | set(comes)
    new = exchange(keep, kept, score, gradient, share)
    assert {i for i in range(len(keep)) if new[i]} == expected
    assert int(new.sum()) == int(keep.sum())


def toy(optimizer: str = "adamw", **options: Any) -> ToyRun:
    ramp = {"begin": 3, "end": 21, "every": 2, "sparsity": 0.6, "regrow": "gradient"}
    return ToyRun(SPEC, ramp | options, optimizer)


def step_with_gradients(run: ToyRun) -> dict[str, Tensor]:
    """One step; returns the dense gradients, which the host zeroes under the masks."""
    controller = run.controller
    assert controller is not None
    seen: dict[str, Tensor] = {}
    told = controller.before_optimizer_step

    def spy(step: int) -> None:
        seen.update({n: p.grad.abs() for n, p in controller.parameters() if p.grad is not None})
        told(step)

    controller.before_optimizer_step = spy  # type: ignore[method-assign]
    run.step()
    controller.before_optimizer_step = told  # type: ignore[method-assign]
    return seen


@pytest.mark.parametrize("anneal", ["cosine", "constant"])
def test_as_many_change_places_as_the_second_cosine_says(anneal: str) -> None:
    run = toy(initial_sparsity=0.6, regrow_fraction=0.4, regrow_anneal=anneal)
    assert run.controller is not None
    store = run.controller.store
    changed = []
    for _ in range(STEPS):
        old = {name: store.mask(name) for name in store.shapes}
        gradients = step_with_gradients(run)
        if run.steps < 3 or run.steps > 21 or (run.steps - 3) % 2 != 0:
            assert all(torch.equal(old[name], store.mask(name)) for name in old)
            continue
        assert store.total_pruned == round(0.6 * store.total)
        if run.steps == 3:  # the first masks: nothing was removed that could come back
            continue
        u = (run.steps - 3) / 18
        share = 0.4 if anneal == "constant" else 0.2 * (1 + math.cos(math.pi * u))
        for name, before in old.items():
            after = store.mask(name)
            count = min(math.floor(share * int(before.sum())), int((~before).sum()))
            comes, stays = after & ~before, ~after & ~before
            assert int(comes.sum()) == int((before & ~after).sum()) == count
            if count and stays.any():
                assert gradients[name][comes].min() >= gradients[name][stays].max()
            changed.append(count)
    assert sum(changed) > 100
    assert (sum(changed[-len(old) :]) == 0) == (anneal == "cosine")


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_what_comes_back_starts_at_zero_with_empty_slots(optimizer: str) -> None:
    assert count_fresh(optimizer) > 50


def test_without_enforcement_what_comes_back_is_not_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MaskStore, "enforce", lambda self, parameters, optimizer: None)
    with pytest.raises(AssertionError, match="of what came back is not 0"):
        count_fresh("adamw")


def count_fresh(optimizer: str) -> int:
    """Check weights and slots of what comes back; returns how many weights that were."""
    run = toy(optimizer, initial_sparsity=0.3)
    assert run.controller is not None
    store, found = run.controller.store, 0
    for _ in range(STEPS):
        old = {name: store.mask(name) for name in store.shapes}
        run.step()
        tensors = run.tensors()
        for name, before in old.items():
            back = store.mask(name) & ~before
            found += int(back.sum())
            for place, value in tensors.items():
                if place.endswith(f" {name}") and value.shape == back.shape:
                    assert not value[back].any(), f"{place} of what came back is not 0"
    # and it learns: what came back last has left zero
    weights = dict(run.controller.parameters())
    live = sum(int((store.mask(n) & (w == 0)).sum()) for n, w in weights.items())
    assert live < 10
    return found


def test_in_the_scope_of_a_tensor_caps_hold_with_regrowth() -> None:
    for scope in ("global", "layer", "erk"):
        run = toy(initial_sparsity=0.5, scope=scope, regrow_fraction=1.0)
        assert run.controller is not None
        store = run.controller.store
        for _ in range(STEPS):
            run.step()
            for name in ("x_proj.weight", "dt_proj.weight"):
                assert store.pruned(name) <= store.shapes[name].numel() // 2


def test_the_erk_scope_makes_larger_tensors_sparser() -> None:
    run = toy(scope="erk", regrow="none", sparsity=0.5)
    assert run.controller is not None
    store = run.controller.store
    for _ in range(STEPS):
        run.step()
    density = {n: 1 - store.pruned(n) / shape.numel() for n, shape in store.shapes.items()}
    raw = {name: sum(shape) / shape.numel() for name, shape in store.shapes.items()}
    # in_proj (22, 9) is the larger; x_proj and dt_proj (7, 11) keep more than half by themselves
    ratio = density["in_proj.weight"] / density["out_proj.weight"]
    assert ratio == pytest.approx(raw["in_proj.weight"] / raw["out_proj.weight"], rel=0.03)
    assert ratio < 0.9
    assert density["x_proj.weight"] > density["out_proj.weight"]


def test_removed_weights_stay_removed_without_regrowth() -> None:
    run = toy(regrow="none", initial_sparsity=0.2)
    assert run.controller is not None
    store = run.controller.store
    for _ in range(STEPS):
        old = {name: store.mask(name) for name in store.shapes}
        run.step()
        assert not any((store.mask(name) & ~before).any() for name, before in old.items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"initial_sparsity": 0.9}, r"prune\.initial_sparsity is 0\.9, expected from 0 to .*0\.8"),
        ({"initial_sparsity": -0.1}, r"prune\.initial_sparsity is -0\.1"),
        ({"regrow_fraction": 0.0}, r"prune\.regrow_fraction is 0\.0, expected more than 0"),
        ({"regrow_fraction": 1.1}, r"prune\.regrow_fraction is 1\.1"),
        ({"regrow": "gradient", "units": "channels"}, r"only single weights can come back"),
        ({"scope": "erk", "units": "channels"}, r"scope is erk with prune\.units channels"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DynamicOptions(**options)
