"""Iterative pruning inside `ssm-train fit`: what a level begins with.

Everything is read from the saved files.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from ssm_core.train import loop, recorder
from ssm_core.train.checkpoint import load_state
from ssm_core.train.run import Run
from ssm_prune.masks import unpack_bits

Train = Callable[..., Path]
K, END, LEVELS = 8, 12, 2  # 6 steps are an epoch: K is in the middle of one
IMP = ("--prune", "imp", "--prune.sparsity", "0.36", "--prune.levels", "2")
WORDS = (*IMP, "--prune.rewind_step", f"{K}it", "--trainer.ema_decay", "0.5")
SCHEDULE = ("--optim.schedule", "cosine", "--optim.warmup_steps", "3")


class Watched:
    """Every checkpoint of a run, and the data and the learning rate of every step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.states: list[dict[str, Any]] = []
        self.steps: dict[int, list[tuple[int, float, float]]] = {}
        save, step = recorder.save_state, loop._step

        def save_and_read(path: Path, state: dict[str, Any]) -> None:
            save(path, state)
            self.states.append(load_state(path))

        def noted(run: Run, batch: Any, *rest: Any) -> dict[str, float]:
            seen = (run.step, float(batch[0].sum()), run.optimizer.param_groups[0]["lr"])
            self.steps.setdefault(run.level, []).append(seen)
            return step(run, batch, *rest)

        monkeypatch.setattr(recorder, "save_state", save_and_read)
        monkeypatch.setattr(loop, "_step", noted)

    def at(self, level: int, step: int) -> dict[str, Any]:
        """The first checkpoint there."""
        found = [s for s in self.states if (s["level"], s["step"]) == (level, step)]
        return found[0]


def masks(state: dict[str, Any]) -> dict[str, Tensor]:
    """Name -> True where kept, of the parameters that lost weights."""
    saved = state["plugins"]["prune"]["masks"]
    return {n: ~unpack_bits(m["bits"], torch.Size(m["shape"])) for n, m in saved.items()}


def digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()


def kept_weights(folder: Path) -> dict[str, Tensor]:
    (path,) = (folder / "checkpoints").glob("rewind-*.safetensors")
    return load_state(path)["module"]


def prunable(folder: Path) -> int:
    report = json.loads((folder / "prune_report.json").read_text(encoding="utf-8"))
    return int(report["prunable_weights"])


def masked(weights: dict[str, Tensor], kept: dict[str, Tensor]) -> dict[str, Tensor]:
    zero = torch.zeros(())
    return {n: torch.where(kept[n], w, zero) if n in kept else w for n, w in weights.items()}


def test_a_level_begins_with_the_weights_of_step_k_and_sees_the_same_data(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(monkeypatch)
    folder = train(*WORDS, *SCHEDULE)
    W_k = kept_weights(folder)
    level_0 = watched.at(0, K)["module"]
    assert {n: digest(w) for n, w in W_k.items()} == {n: digest(w) for n, w in level_0.items()}
    for level in range(1, LEVELS + 1):
        start = watched.at(level, K)
        expected = masked(W_k, masks(start))
        assert start["module"].keys() == W_k.keys()
        for name, value in start["module"].items():
            assert digest(value) == digest(expected[name]), name
        for name, value in start["ema"].items():
            assert torch.equal(value, expected[name]), name
        assert start["optimizer"]["state"] == {}
        assert watched.steps[level] == watched.steps[0][K:]
    assert len({lr for _, _, lr in watched.steps[0]}) > END / 2  # the schedule does something
    assert watched.states[-1]["level"] == LEVELS


def test_masks_are_nested_and_a_level_removes_a_fraction_of_the_survivors(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(monkeypatch)
    folder = train(*WORDS)
    total = survivors = prunable(folder)
    before: dict[str, Tensor] = {}
    for level in range(1, LEVELS + 1):
        kept = masks(watched.at(level, K))
        trained = [s for s in watched.states if (s["level"], s["step"]) == (level - 1, END)][-1]
        new, left = [], []
        for name, keep in kept.items():
            old = before.get(name, torch.ones_like(keep))
            assert not (keep & ~old).any(), name
            if "x_proj" not in name and "dt_proj" not in name:  # these have a limit of their own
                size = trained["module"][name].abs()
                new.append(size[old & ~keep])
                left.append(size[keep])
        assert torch.cat(new).max() <= torch.cat(left).min()
        survivors -= round(0.2 * survivors)
        assert sum(int((~keep).sum()) for keep in kept.values()) == total - survivors
        before = kept
    weights = load_file(folder / "model.safetensors")
    assert sum(int((w[~before[n]] == 0).sum()) for n, w in weights.items() if n in before) == (
        total - survivors
    )
    assert total - survivors == round(0.36 * total)


def test_the_history_has_a_row_per_level_with_its_evaluation(train: Train) -> None:
    folder = train(*WORDS)
    report = json.loads((folder / "prune_report.json").read_text(encoding="utf-8"))
    levels = [entry for entry in report["updates"] if "level" in entry]
    assert [entry["level"] for entry in levels] == [0, 1, 2]
    assert [entry["sparsity"] for entry in levels] == pytest.approx([0, 0.2, 0.36], abs=1e-3)
    assert [entry["target"] for entry in levels] == pytest.approx([0, 0.2, 0.36], abs=1e-3)
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["name"] == "eval/loss"]
    by_step = {int(row["step"]): float(row["value"]) for row in rows}
    ends = [END + level * (END - K) for level in range(LEVELS + 1)]
    assert [entry["eval/loss"] for entry in levels] == pytest.approx(
        [by_step[step] for step in ends]
    )


def test_levels_of_whole_units(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    words = ("--prune", "imp", "--prune.units", "states", "--prune.sparsity", "0.5")
    folder = train(*words, "--prune.levels", "2", "--prune.rewind_step", f"{K}it")
    W_k, gone = kept_weights(folder), []
    for level in range(1, LEVELS + 1):
        start = watched.at(level, K)["module"]
        silent = []
        for name, value in start.items():
            zero = torch.zeros(())
            if name.endswith("x_proj.weight"):
                rows = (value == 0).all(dim=1)  # the step size, then B, then C of 4 states
                assert not rows[:-4].any()
                silent += [(name, int(row)) for row in rows.nonzero()]
                assert torch.equal(value, torch.where(rows[:, None], zero, W_k[name]))
            else:
                assert torch.equal(value, W_k[name])
        gone.append(set(silent))
    assert [len(units) for units in gone] == [2, 4]  # of 8: a fraction 1 - sqrt(0.5), then half
    assert gone[0] < gone[1]


def test_other_ways_to_begin_a_level(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    finals = {}
    ways = {
        "k": ("k", f"{K}it"),
        "lr": ("lr", f"{K}it"),
        "none": ("none", f"{K}it"),
        "init": ("init", "null"),
    }
    for name, (rewind, step) in ways.items():
        with monkeypatch.context() as patch:
            watched = Watched(patch)
            words = (*IMP, "--prune.rewind", rewind, "--prune.rewind_step", step)
            folder = train(*words, *SCHEDULE, out=name)
        finals[name] = load_file(folder / "model.safetensors")
        first = 0 if rewind == "init" else K
        start, end = watched.at(1, first), watched.states
        trained = [s for s in end if (s["level"], s["step"]) == (0, END)][-1]["module"]
        begin = trained if rewind in ("lr", "none") else kept_weights(folder)
        expected = masked(begin, masks(start))
        assert all(torch.equal(w, expected[n]) for n, w in start["module"].items())
        assert watched.steps[1] == watched.steps[0][first:]
        # fine-tuning goes on with its moments, except under the mask
        assert (start["optimizer"]["state"] == {}) == (rewind != "none")
    heads = [final["head.weight"] for final in finals.values()]
    assert all(not torch.equal(a, b) for i, a in enumerate(heads) for b in heads[:i])


def test_the_control_begins_with_the_initial_values_in_another_order(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(monkeypatch)
    words = ("--prune.rewind", "init", "--prune.reinit", "random")
    folder = train(*IMP, *words)
    start, initial = watched.at(1, 0), kept_weights(folder)
    kept = masks(start)
    report = json.loads((folder / "prune_report.json").read_text(encoding="utf-8"))
    shuffled = {t["name"] for t in report["tensors"] if t["may_be_pruned"]}
    assert shuffled >= kept.keys()
    for name, value in start["module"].items():
        if name not in shuffled:
            assert torch.equal(value, initial[name])
            continue
        keep = kept.get(name, torch.ones_like(value, dtype=torch.bool))
        assert not torch.equal(value, initial[name] * keep)
        assert set(value[keep].tolist()) <= set(initial[name].flatten().tolist())


def test_the_optimizer_of_step_k_may_be_restored(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(monkeypatch)
    train(*WORDS, "--prune.rewind_optimizer", "restore")
    then, start = (watched.at(level, K)["optimizer"]["state"] for level in (0, 1))
    assert then.keys() == start.keys()
    for number, slots in start.items():
        live = slots["exp_avg"] != 0
        assert live.any()
        assert torch.equal(slots["exp_avg"][live], then[number]["exp_avg"][live])


def test_sparsity_0_is_bit_identical_to_no_pruning(train: Train) -> None:
    plain = train(out="plain")
    pruned = train("--prune", "imp", "--prune.sparsity", "0", out="pruned")
    ours, theirs = (load_file(f / "model.safetensors") for f in (plain, pruned))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not list((pruned / "checkpoints").glob("rewind-*"))
