"""What two processes do with the controller in a loop of their own; see `distributed_worker.py`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ssm_prune import MethodSpec, PruneContext, PruneError, Pruner
from ssm_prune.controller import Controller
from ssm_prune.distributed import Processes
from ssm_prune.loader import Method, PrunePlugins
from ssm_prune.masks import MaskStore
from ssm_prune.methods.dynamic import DynamicCosine
from ssm_prune.options import PruneOptions
from ssm_prune.pruner import Proposal
from ssm_prune.steps import RunLength
from ssm_prune.testing import SCHEDULE, STEPS, ToyModel, ToyRun


class RankRandom(Pruner):
    """Scores of its own on each rank, as from an unseeded generator."""

    def after_optimizer_step(self, ctx: PruneContext) -> Proposal | None:
        if not ctx.due:
            return None
        own = torch.Generator().manual_seed(1000 * ctx.step + ctx.processes.rank)
        scores = {n: torch.rand(p.shape, generator=own) for n, p in ctx.prunable()}
        self.proposed = ctx.prune_lowest(scores)
        return self.proposed


class RankStubborn(Pruner):
    """Proposes on one rank only, which is not the first."""

    def after_optimizer_step(self, ctx: PruneContext) -> Proposal | None:
        if ctx.processes.rank == 0:
            return None
        return ctx.prune_lowest({n: p.abs() for n, p in ctx.prunable()})


class MeanGradient(Pruner):
    """A moving average of |w g|, as a gradient method keeps it."""

    def setup(self, ctx: PruneContext) -> None:
        self.scores = {n: torch.zeros_like(p) for n, p in ctx.prunable()}

    def before_optimizer_step(self, ctx: PruneContext) -> None:
        for name, weight in ctx.prunable():
            assert weight.grad is not None
            self.scores[name].lerp_((weight * weight.grad).abs(), 0.3)

    def after_optimizer_step(self, ctx: PruneContext) -> Proposal | None:
        return ctx.prune_lowest(self.scores) if ctx.due else None


def toy_run(method: type[Pruner], **options: Any) -> ToyRun:
    return ToyRun(MethodSpec("test", method, ""), {**SCHEDULE, "sparsity": 0.6, **options})


def random_scores() -> dict[str, Any]:
    run = toy_run(RankRandom)
    assert run.controller is not None
    digests = []
    for _ in range(STEPS):
        run.step()
        digests.append(run.controller.store.digest())
    pruner = run.controller.pruner
    assert isinstance(pruner, RankRandom)
    own = MaskStore(run.controller.store.shapes)
    own.replace(pruner.proposed.masks)
    weights = {name: p.detach().flatten().tolist() for name, p in run.model.named_parameters()}
    return {
        "digests": digests,
        "proposed": own.digest(),
        "weights": weights,
        "removed": run.controller.store.total_pruned,
        "total": run.controller.store.total,
    }


def stubborn() -> dict[str, Any]:
    run = toy_run(RankStubborn)
    for _ in range(3):
        run.step()
    assert run.controller is not None
    return {"removed": run.controller.store.total_pruned}


def refused(method: type[Pruner]) -> dict[str, Any]:
    """The error of a run whose ranks are not made to agree."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Processes, "of_first", lambda self, value: value)
        run = toy_run(method)
        try:
            for _ in range(STEPS):
                run.step()
        except PruneError as error:
            return {"error": str(error), "step": run.steps}
    return {"error": "", "step": run.steps}


def reduced(rank: int) -> dict[str, Any]:
    run = toy_run(DynamicCosine)
    assert run.controller is not None
    ctx = run.controller.ctx
    own = torch.tensor([1.0, 2.0]) * (rank + 1)
    mean = ctx.reduce(own)
    return {
        "mean": mean.tolist(),
        "own": own.tolist(),
        "integers": ctx.reduce(torch.tensor([rank, 4])).tolist(),
        "rank": ctx.processes.rank,
        "size": ctx.processes.size,
    }


def gradient_run(share: slice, parallel: bool) -> dict[str, Any]:
    """Train in float64 on a share of each batch; masks after every update, and the weights."""
    torch.manual_seed(0)
    module = ToyModel().double()
    model = DistributedDataParallel(module) if parallel else module
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
    controller = start(module, optimizer, MeanGradient)
    digests = []
    for step in range(STEPS):
        data = torch.Generator().manual_seed(step)
        x = torch.randn(8, 5, generator=data, dtype=torch.float64)[share]
        target = torch.randint(3, (8,), generator=data)[share]
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), target).backward()
        controller.before_optimizer_step(step)
        optimizer.step()
        controller.after_optimizer_step(step + 1)
        digests.append(controller.store.digest())
    weights = {name: p.detach().flatten().tolist() for name, p in module.named_parameters()}
    return {"digests": digests, "weights": weights}


def start(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    method: type[Pruner],
    options: PruneOptions | None = None,
) -> Controller:
    options = options or PruneOptions(sparsity=0.6, begin=3, end=21, every=2)
    spec = MethodSpec("test", method, "")
    controller = Controller(
        Method(spec, "tests", "0"), options, PrunePlugins(load_entry_points=False)
    )
    controller.start(module, optimizer, RunLength(STEPS, 10), seed=0)
    return controller
