"""Files that a run goes back to: named after their content, checked when they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ssm_core.errors import CheckpointError
from ssm_prune.pruner import Proposal, Rewind
from ssm_prune.rewind import (
    go_back,
    load_rewind,
    rewind_path,
    rewind_state,
    save_rewind,
    shuffle,
    state_digest,
)


def trained(steps: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(5, 3)).square().sum().backward()
        optimizer.step()
    return model, optimizer


def copies(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


BASE: dict[str, Any] = {
    "module": {"w": torch.tensor([1.0, 2.0]), "half": torch.ones(3, dtype=torch.bfloat16)},
    "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "groups": [{"betas": (0.9, 0.999)}]},
    "loader": None,
}


@pytest.mark.parametrize(
    "change",
    [
        {"loader": {}},
        {"loader": 0},
        {"module": {**BASE["module"], "w": torch.tensor([1.0, -2.0])}},
        {"module": {**BASE["module"], "w": torch.tensor([[1.0, 2.0]])}},
        {"module": {**BASE["module"], "w": torch.tensor([1.0, 2.0], dtype=torch.float64)}},
        {"module": {"v": BASE["module"]["w"], "half": BASE["module"]["half"]}},
        {"optimizer": {**BASE["optimizer"], "state": {1: {"step": torch.tensor(3.0)}}}},
    ],
)
def test_every_change_gives_another_name(change: dict[str, Any]) -> None:
    assert state_digest(BASE | change) != state_digest(BASE)


def test_what_is_read_has_the_name_of_what_was_written(tmp_path: Path) -> None:
    digest = save_rewind(tmp_path, BASE)
    assert digest == state_digest(BASE) == state_digest(load_rewind(tmp_path, digest))
    assert save_rewind(tmp_path, dict(reversed(BASE.items()))) == digest
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == [
        f"rewind-{digest}.safetensors"
    ]


def test_a_file_under_a_wrong_name_is_refused(tmp_path: Path) -> None:
    digest = save_rewind(tmp_path, BASE)
    wrong = "0" * 64
    rewind_path(tmp_path, digest).rename(rewind_path(tmp_path, wrong))
    with pytest.raises(CheckpointError, match="its content is not the one it is named after"):
        load_rewind(tmp_path, wrong)
    with pytest.raises(CheckpointError, match="missing"):
        load_rewind(tmp_path, digest)


@pytest.mark.parametrize("optimizer", ["reset", "restore", "keep"])
@pytest.mark.parametrize("weights", ["saved", "present"])
def test_weights_buffers_and_slots_are_those_asked_for(
    tmp_path: Path, weights: Any, optimizer: Any
) -> None:
    early, early_optimizer = trained(2)
    digest = save_rewind(tmp_path, rewind_state(early, early_optimizer, None))
    late, late_optimizer = trained(7)
    wanted = copies(early if weights == "saved" else late)
    moments = {"restore": early_optimizer, "keep": late_optimizer}.get(optimizer)
    slots = state_digest(moments.state_dict()["state"] if moments else {})
    rewind = Rewind(2, Proposal(), weights, optimizer)
    go_back(late, late_optimizer, load_rewind(tmp_path, digest), rewind)
    assert all(torch.equal(value, wanted[name]) for name, value in late.state_dict().items())
    assert not torch.equal(early[1].running_mean, trained(7)[0][1].running_mean)
    assert state_digest(late_optimizer.state_dict()["state"]) == slots


def test_random_order_keeps_the_values_of_each_tensor() -> None:
    model = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3))
    before, rng = copies(model), torch.Generator().manual_seed(1)
    shuffle([("0.weight", model[0].weight)], rng)
    after = model.state_dict()
    assert not torch.equal(after["0.weight"], before["0.weight"])
    assert after["0.weight"].flatten().sort()[0].equal(before["0.weight"].flatten().sort()[0])
    assert all(torch.equal(after[n], before[n]) for n in before if n != "0.weight")
