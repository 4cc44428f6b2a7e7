"""What two processes do with parameters that FSDP2 shards; see `distributed_worker.py`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed_cases import MeanGradient, start
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from ssm_core.train.checkpoint import save_state
from ssm_prune.masks import MaskStore
from ssm_prune.testing import STEPS, ToyModel

RANKS = 2


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
