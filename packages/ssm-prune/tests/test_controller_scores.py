"""Scores that a method hands to the host: complete, numbers, of any numeric type."""

from __future__ import annotations

import pytest
import torch

from ssm_prune import MethodSpec, Proposal, ProposalError, PruneContext, Pruner
from ssm_prune.testing import ToyRun


def toy(method: type[Pruner]) -> ToyRun:
    settings = {"begin": 3, "end": 21, "every": 1, "sparsity": 0.6}
    return ToyRun(MethodSpec("test-method", method, ""), settings)


def test_scores_must_cover_every_parameter() -> None:
    class Forgetful(Pruner):
        def after_optimizer_step(self, ctx: PruneContext) -> Proposal | None:
            return ctx.prune_lowest({"in_proj.weight": torch.rand(22, 9)})

    with pytest.raises(ProposalError, match=r"the scores hold nothing for x_proj.weight"):
        toy(Forgetful).step()


def test_scores_that_are_not_numbers_are_refused_with_the_methods_name() -> None:
    class Divides(Pruner):
        def after_optimizer_step(self, ctx: PruneContext) -> Proposal | None:
            return ctx.prune_lowest({name: p / 0 * 0 for name, p in ctx.prunable()}, 0.3)

    with pytest.raises(ProposalError, match=r"'test-method' of conformance 0.*hold NaN"):
        toy(Divides).step()


def test_scores_may_be_integers() -> None:
    class Ordinal(Pruner):
        def after_optimizer_step(self, ctx: PruneContext) -> Proposal | None:
            ranks = {n: torch.arange(p.numel()).view(p.shape) for n, p in ctx.prunable()}
            return ctx.prune_lowest(ranks, 0.3)

    run = toy(Ordinal)
    run.step()
    controller = run.controller
    assert controller is not None
    assert controller.store.total_pruned == round(0.3 * controller.store.total)
    assert not controller.ctx.mask("in_proj.weight").flatten()[:10].any()
