"""The conformance kit passes what keeps the promises and fails what breaks one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ssm_prune import MethodSpec, Proposal, PruneContext, Pruner
from ssm_prune.masks import MaskStore
from ssm_prune.methods import ssm_prune_methods
from ssm_prune.methods.dynamic import DynamicCosine
from ssm_prune.methods.n_m import NM, NMOptions
from ssm_prune.testing import (
    check_dense_parity,
    check_resume,
    check_schedule,
    check_zeros_stay,
    conformance,
)

SPECS = {spec.name: spec for spec in ssm_prune_methods()}
REGROW = {"regrow": "gradient", "regrow_fraction": 0.4}
SNIP = {"criterion": "snip", "begin": 3, "end": 3, "every": None, "snip_steps": 2}
#: (method, options); the sizes of the toy model are multiples of 3 and 11
CASES: list[tuple[str, dict[str, Any]]] = [
    ("dynamic-cosine", {}),
    ("dynamic-cosine", {"scope": "layer", "sparsity": 0.0}),
    ("dynamic-cosine", REGROW | {"initial_sparsity": 0.3, "score": "random"}),
    ("dynamic-cosine", REGROW | {"initial_sparsity": 0.6, "begin": 0}),
    ("gradient", {}),
    ("gradient", {"criterion": "movement"}),
    ("gradient", SNIP),
    ("early-bird", {"every": 1, "end": 20}),
    ("early-bird", {"every": 2, "end": 25, "rule": "consecutive", "distance": "jaccard"}),
    ("imp", {"levels": 3, "rewind_step": 4}),
    ("imp", {"fraction": 0.5, "rewind": "init", "reinit": "random"}),
    ("imp", {"levels": 1, "rewind": "lr", "rewind_optimizer": "restore"}),
    ("magnitude", {}),
    ("n:m", {"n": 6, "m": 11}),
    ("random", {}),
]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_every_method_of_this_package_conforms(name: str, options: dict[str, Any]) -> None:
    assert conformance(SPECS[name], options) is None


def test_no_method_of_this_package_is_left_out() -> None:
    assert {name for name, _ in CASES} >= SPECS.keys()


class OneMore(Pruner):
    """Removes a little more than asked for."""

    def after_optimizer_step(self, ctx: PruneContext) -> Proposal | None:
        scores = {name: weight.abs() for name, weight in ctx.prunable()}
        return ctx.prune_lowest(scores, ctx.target * 1.02) if ctx.due else None


class Touches(DynamicCosine):
    """Changes gradients though nothing is pruned."""

    def before_optimizer_step(self, ctx: PruneContext) -> None:
        for _, weight in ctx.prunable():
            if weight.grad is not None:
                weight.grad.mul_(0.99)


class UsesGlobalRandomness(Pruner):
    """Draws from torch's own generator, which a resumed run does not have in the same state."""

    def after_optimizer_step(self, ctx: PruneContext) -> Proposal | None:
        scores = {name: torch.rand(weight.shape) for name, weight in ctx.prunable()}
        return ctx.prune_lowest(scores) if ctx.due else None


class Forgets(Pruner):
    """Ranks by the sum of all past magnitudes, and does not save the sum."""

    def setup(self, ctx: PruneContext) -> None:
        self.sums = {name: torch.zeros_like(weight) for name, weight in ctx.prunable()}

    def after_optimizer_step(self, ctx: PruneContext) -> Proposal | None:
        for name, weight in ctx.prunable():
            self.sums[name] += weight.abs() ** 3
        return ctx.prune_lowest(self.sums) if ctx.due else None


class ComesBackLate(DynamicCosine):
    """Removes one weight more and takes it back a step later."""

    def after_optimizer_step(self, ctx: PruneContext) -> Proposal | None:
        scores = {name: weight.abs() for name, weight in ctx.prunable()}
        extra = 0 if ctx.due else 1 / sum(score.numel() for score in scores.values())
        return ctx.prune_lowest(scores, ctx.target + extra) if ctx.step > 3 else None


class TouchesAPattern(NM):
    """Changes weights long before it prunes, although its pattern has no sparsity 0."""

    def after_optimizer_step(self, ctx: PruneContext) -> Proposal | None:
        if ctx.step == 7:
            for _, weight in ctx.prunable():
                weight.mul_(0.99)
        return super().after_optimizer_step(ctx)


class SavesAnObject(DynamicCosine):
    """Saves what a checkpoint cannot hold."""

    def state_dict(self) -> dict[str, Any]:
        return {"when": object()}


@pytest.mark.parametrize(
    ("method", "check", "message"),
    [
        (OneMore, check_schedule, "weights are zero after step"),
        (Pruner, check_schedule, "0 of .* weights are zero after step 5"),
        (ComesBackLate, check_schedule, "weights are zero after step"),
        (Touches, check_dense_parity, "sparsity 0 changes"),
        (UsesGlobalRandomness, check_resume, "a stop at step|other losses after a stop"),
        (Forgets, check_resume, "a stop at step|other losses after a stop"),
    ],
)
def test_a_method_that_breaks_a_promise_fails(
    method: type[Pruner], check: Any, message: str
) -> None:
    with pytest.raises(AssertionError, match=message):
        check(MethodSpec("bad", method, ""))


def test_a_pattern_that_is_felt_before_its_time_fails() -> None:
    spec = MethodSpec("bad", TouchesAPattern, "", NMOptions)
    with pytest.raises(AssertionError, match="sparsity 0 changes"):
        check_dense_parity(spec, {"n": 6, "m": 11})


def test_a_state_that_cannot_be_saved_is_named() -> None:
    with pytest.raises(TypeError, match=r"prune\.pruner\.when"):
        check_resume(MethodSpec("bad", SavesAnObject, ""))


def test_a_saved_state_needs_a_loader() -> None:
    class Saves(DynamicCosine):
        def state_dict(self) -> dict[str, Any]:
            return {"count": 1}

    with pytest.raises(NotImplementedError, match="Saves saves a state but cannot load it"):
        check_resume(MethodSpec("bad", Saves, ""))


def test_zeros_that_come_back_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MaskStore, "zero_gradients", lambda self, parameters: None)
    spec = SPECS["dynamic-cosine"]
    check_zeros_stay(spec)  # enforcement alone is enough
    monkeypatch.setattr(MaskStore, "enforce", lambda self, parameters, optimizer: None)
    with pytest.raises(AssertionError, match="not zero under the mask"):
        check_zeros_stay(spec)
