"""One of two processes that `test_distributed.py` starts: runs every case, writes what came out.

    python distributed_worker.py RANK FOLDER PORT PORT PORT

Each process writes FOLDER/RANK.json: case -> what the test asserts on.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from ssm_core.cli import main
from ssm_core.train.checkpoint import save_state
from ssm_prune import MethodSpec, PruneContext, PruneError, Pruner, hookimpl
from ssm_prune.controller import Controller
from ssm_prune.distributed import Processes
from ssm_prune.loader import Method, PrunePlugins, prune_plugins
from ssm_prune.masks import MaskStore
from ssm_prune.methods.dynamic import DynamicCosine
from ssm_prune.options import PruneOptions
from ssm_prune.pruner import Proposal
from ssm_prune.steps import RunLength
from ssm_prune.testing import SCHEDULE, STEPS, ToyModel, ToyRun

RANKS = 2


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


class RandomPlugin:
    """Offers `rank-random` to `ssm-train`."""

    @hookimpl
    def ssm_prune_methods(self) -> list[MethodSpec]:
        return [MethodSpec("rank-random", RankRandom, "other scores on every rank")]


@contextlib.contextmanager
def process_group(rank: int, folder: Path, case: str) -> Iterator[None]:
    """The group of one case."""
    store = f"file://{folder / case}.store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=RANKS)
    try:
        yield
    finally:
        dist.destroy_process_group()


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


def sharded(folder: Path, rank: int, enforced: bool) -> dict[str, Any]:
    """FSDP2: weights and masks after every step, and the whole state in a file."""
    torch.manual_seed(0)
    module = ToyModel()
    mesh = init_device_mesh("cpu", (RANKS,))
    for layer in (module.in_proj, module.out_proj):
        fully_shard(layer, mesh=mesh)
    fully_shard(module, mesh=mesh)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01)
    controller = start(module, optimizer, MeanGradient)
    removed, revived, sizes = [], 0, set()
    for step in range(STEPS if enforced else 9):
        data = torch.Generator().manual_seed(2 * step + rank)
        optimizer.zero_grad()
        target = torch.randint(3, (8,), generator=data)
        outputs = module(torch.randn(8, 5, generator=data))
        nn.functional.cross_entropy(outputs, target).backward()
        controller.before_optimizer_step(step)
        optimizer.step()
        with pytest.MonkeyPatch.context() as patch:
            if not enforced:
                patch.setattr(MaskStore, "enforce", lambda self, parameters, optimizer: None)
            controller.after_optimizer_step(step + 1)
        removed.append(controller.store.total_pruned)
        for (kind, fqn), tensor in gathered(dict(controller.parameters()), optimizer).items():
            bits = tensor[~controller.store.mask(fqn)].view(torch.int32)
            revived += int(bits.count_nonzero())
            sizes.add(kind)
    whole = gathered(dict(module.named_parameters()), optimizer)
    path = folder / f"sharded-{enforced}.safetensors"
    if rank == 0:
        weights = {name: tensor for (kind, name), tensor in whole.items() if kind == "weight"}
        save_state(path, {"model": weights, "masks": controller.store.state_dict()})
    local = sum(p.to_local().numel() for p in module.parameters())  # type: ignore[attr-defined]
    return {
        "removed": removed,
        "revived": revived,
        "kinds": sorted(sizes),
        "total": controller.store.total,
        "prunable": sorted(controller.store.shapes),
        "file": str(path),
        "local": local,
        "all": sum(p.numel() for p in module.parameters()),
    }


def gathered(
    parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> dict[tuple[str, str], Tensor]:
    """(kind, name) -> weights and optimizer slots, put together the way a checkpoint does it."""
    found = {}
    for name, parameter in parameters.items():
        found["weight", name] = parameter.detach().full_tensor().clone()  # type: ignore[attr-defined]
        for slot, value in optimizer.state[parameter].items():
            if value.ndim:
                found[slot, name] = value.full_tensor().clone()
    return found


def replaced_twice(rank: int) -> dict[str, Any]:
    """Other masks twice on sharded weights: the second must hold, the first be forgotten."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 7), nn.Linear(7, 2))
    mesh = init_device_mesh("cpu", (RANKS,))
    fully_shard(module, mesh=mesh)
    weight = module[1].weight
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    store = MaskStore({"1.weight": weight.shape})
    zeros = []
    for seed in range(3):
        mask = torch.rand(weight.shape, generator=torch.Generator().manual_seed(seed)) > 0.4
        store.replace({"1.weight": mask})
        with torch.no_grad():
            weight.to_local().fill_(1.0)  # type: ignore[attr-defined]
        store.enforce([("1.weight", weight)], optimizer)
        zeros.append(bool(torch.equal(weight.full_tensor() != 0, mask)))  # type: ignore[attr-defined]
    return {"equal": zeros}


def command_line(words: list[str], out: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """`ssm-train fit toy` as one of two processes that torchrun would start."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            code = main(["fit", "toy", "--out", str(out), *words])
    return {
        "code": code,
        "out": str(out),
        "error": (errors.getvalue().strip().splitlines() or [""])[-1],
    }


def run_cases(rank: int, folder: Path, ports: list[str]) -> dict[str, Any]:
    half = slice(rank * 4, rank * 4 + 4)
    found: dict[str, Any] = {"joined": gradient_run(slice(None), parallel=False)}
    with process_group(rank, folder, "group"):
        found["random"] = random_scores()
        found["stubborn"] = stubborn()
        found["refused"] = refused(RankRandom)
        found["reduced"] = reduced(rank)
        found["halves"] = gradient_run(half, parallel=True)
        found["sharded"] = sharded(folder, rank, enforced=True)
        found["unenforced"] = sharded(folder, rank, enforced=False)
        found["replaced"] = replaced_twice(rank)
    prune_plugins().register(RandomPlugin(), "rank-random", "1")
    world = {"WORLD_SIZE": str(RANKS), "LOCAL_WORLD_SIZE": str(RANKS), "GROUP_RANK": "0"}
    world |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1"}
    world |= {"TORCHELASTIC_RUN_ID": "tests"}
    options = ["--prune.begin", "1it", "--prune.end", "8it", "--prune.every", "1it"]
    options += ["--trainer.ema_decay", "0.9", "--prune.sparsity", "0.7"]
    random = ["--prune", "rank-random", *options]
    world["MASTER_PORT"] = ports[0]
    found["run"] = command_line(random, folder / "agreed", world)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Processes, "of_first", lambda self, value: value)
        world["MASTER_PORT"] = ports[1]
        found["apart"] = command_line(random, folder / "apart", world)
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    number, place = int(sys.argv[1]), Path(sys.argv[2])
    results = run_cases(number, place, sys.argv[3:])
    (place / f"{number}.json").write_text(json.dumps(results), encoding="utf-8")
