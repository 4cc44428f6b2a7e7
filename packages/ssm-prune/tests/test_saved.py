"""What must be the same when a pruned run goes on, and what `prune.force_resume` lets differ."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from safetensors.torch import load_file

from ssm_core.errors import CheckpointError
from ssm_prune.saved import check_settings

Train = Callable[..., Path]
Interrupt = Callable[[int], AbstractContextManager[None]]
WORDS = ("--prune", "dynamic-cosine", "--prune.sparsity", "0.5", "--prune.begin", "1it")
WORDS += ("--prune.end", "6it", "--prune.every", "1it", "--trainer.max_steps", "8")
FORCE = ("--resume", "auto", "--prune.force_resume", "true")
SAVED = {"method": "m", "provider": "p 1", "settings": {"units": "weights", "end": 6, "gone": 1}}


@pytest.fixture
def stopped(train: Train, interrupt: Interrupt) -> Path:
    with interrupt(4):
        return train(*WORDS, code=130)


def test_other_options_are_refused_and_can_be_forced(
    train: Train, stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = (*WORDS, "--prune.sparsity", "0.6", "--prune.end", "7it")
    before = (stopped / "checkpoints" / "last.safetensors").read_bytes()
    train(*more, "--resume", "auto", code=2)
    assert "--prune.sparsity 0.6 differs from 0.5" in capsys.readouterr().err.splitlines()[-1]
    assert (stopped / "checkpoints" / "last.safetensors").read_bytes() == before
    assert train(*more, *FORCE) == stopped
    report = json.loads((stopped / "prune_report.json").read_text(encoding="utf-8"))
    assert report["forced_resumes"] == [{"end": [6, 7], "sparsity": [0.5, 0.6]}]
    weights = load_file(stopped / "model.safetensors")
    pruned = [weights[t["name"]] for t in report["tensors"] if t["may_be_pruned"]]
    total = sum(weight.numel() for weight in pruned)
    assert sum(int((weight == 0).sum()) for weight in pruned) == round(0.6 * total)


def test_other_units_cannot_be_forced(
    train: Train, stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(*WORDS, "--prune.units", "channels", *FORCE, code=2)
    (*_, line) = capsys.readouterr().err.strip().splitlines()
    assert "pruned with units 'weights', this run has 'channels'" in line
    train(*WORDS, "--trainer.seed", "7", *FORCE, code=2)
    assert "--trainer.seed 7 differs" in capsys.readouterr().err  # only the section's own options


def test_another_version_or_method() -> None:
    other = {**SAVED, "provider": "p 2", "settings": {"units": "weights", "end": 7, "new": True}}
    with pytest.raises(CheckpointError, match="pruned with 'm' of p 1, this is 'm' of p 2"):
        check_settings(SAVED, other)
    assert check_settings(SAVED, other, force=True) == {
        "provider": ["p 1", "p 2"],
        "end": [6, 7],
        "gone": [1, None],
        "new": [None, True],
    }
    assert check_settings(SAVED, SAVED) == {}
    with pytest.raises(CheckpointError, match="this is 'n' of p 1"):
        check_settings(SAVED, {**SAVED, "method": "n"}, force=True)
