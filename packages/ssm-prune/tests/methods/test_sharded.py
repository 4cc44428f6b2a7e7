"""Sharded weights (FSDP2): every method takes the same weights as from plain ones, also resumed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from ssm_prune.controller import Controller
from ssm_prune.loader import Method, PrunePlugins
from ssm_prune.methods import ssm_prune_methods
from ssm_prune.steps import RunLength
from ssm_prune.testing import ToyModel, toy_options

SPECS = {spec.name: spec for spec in ssm_prune_methods()}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("dynamic-cosine", {"regrow": "gradient", "initial_sparsity": 0.3}),
    ("gradient", {}),
    ("gradient", {"criterion": "movement"}),
    ("magnitude", {}),
    ("n:m", {"n": 6, "m": 11}),
    ("random", {}),
]


@pytest.fixture(scope="module", autouse=True)
def process_group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A group of one process: its parameters are sharded tensors like those of many."""
    store: Path = tmp_path_factory.mktemp("group") / "store"
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def masks(name: str, options: dict[str, Any], sharded: bool) -> dict[str, Tensor]:
    """The masks after training, through a resume in the middle."""
    torch.manual_seed(0)
    model = ToyModel()
    if sharded:
        fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    assert isinstance(model.in_proj.weight, DTensor) == sharded
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    def start() -> Controller:
        spec = SPECS[name]
        settings = spec.options(**toy_options(spec, options))
        plugins = PrunePlugins(load_entry_points=False)
        controller = Controller(Method(spec, "x", "0"), settings, plugins)
        controller.start(model, optimizer, RunLength(30, 10), seed=0)
        return controller

    controller = start()
    for step in range(22):
        if step == 11:
            state = controller.state_dict()
            controller = start()
            controller.load_state_dict(state)
        data = torch.Generator().manual_seed(step)
        x = torch.randn(8, 5, generator=data)
        target = torch.randint(3, (8,), generator=data)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), target).backward()
        controller.before_optimizer_step(step)
        optimizer.step()
        controller.after_optimizer_step(step + 1)
    assert controller.achieved == pytest.approx(controller.schedule.sparsity, abs=2e-3)
    return {name: controller.store.mask(name) for name in controller.store.shapes}


@pytest.mark.parametrize(("name", "options"), CASES)
def test_sharded_weights_are_pruned_like_plain_ones(name: str, options: dict[str, Any]) -> None:
    plain, sharded = masks(name, options, False), masks(name, options, True)
    assert all(torch.equal(mask, sharded[key]) for key, mask in plain.items())
