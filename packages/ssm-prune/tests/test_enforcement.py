"""In real runs, removed weights are +0 at every moment at which anybody can look at them.

Looked at after every step, inside every evaluation, and in every file, in the weights, their moving
average and the optimizer's slots; whatever the optimizer, with clipping and accumulation.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ssm_core.train import loop
from ssm_core.train.checkpoint import load_state
from ssm_prune.controller import Controller
from ssm_prune.masks import MaskStore, unpack_bits

Train = Callable[..., Path]
STEPS = 200
SPARSITY = 0.7
PRUNE = ("--prune", "dynamic-cosine", "--prune.sparsity", str(SPARSITY), "--prune.every", "7it")
LONG = ("--trainer.max_steps", str(STEPS), "--trainer.checkpoint_every", "50")
AVERAGE = ("--trainer.ema_decay", "0.9")
SLOTS = {
    "sgd": {"momentum_buffer"},
    "adamw": {"exp_avg", "exp_avg_sq"},
    "lamb": {"mean", "square"},
}


class Watch:
    """Counts bits that are not zero under the masks of the run, wherever weights are."""

    def __init__(self) -> None:
        self.controller: Controller
        self.seen: dict[str, int] = {}
        self.alive: dict[str, int] = {}

    def look(self, place: str, tensors: Mapping[str, Tensor]) -> None:
        self.seen[place] = self.seen.get(place, 0) + 1
        for name in self.controller.store.shapes:
            bits = tensors[name].detach()[~self.controller.store.mask(name)].view(torch.int32)
            if bits.any():
                self.alive[place] = self.alive.get(place, 0) + int(bits.count_nonzero())


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """A run that is trained while this stands is looked at from outside the host."""
    watch = Watch()
    start, step, evaluate = Controller.start, loop._step, loop.evaluate

    def started(self: Controller, *arguments: Any) -> None:
        start(self, *arguments)
        watch.controller = self

    def stepped(run: Any, *arguments: Any) -> Any:
        found = step(run, *arguments)
        named = dict(run.module.named_parameters())
        watch.look("weights", named)
        if run.ema is not None:
            watch.look("average", run.ema.values)
        state = run.optimizer.optimizer.state
        for slot in {s for p in named.values() for s in state[p]} - {"step"}:
            watch.look(slot, {name: state[p][slot] for name, p in named.items()})
        return found

    def evaluated(run: Any) -> Any:
        def look(module: nn.Module, inputs: Any) -> None:
            watch.look("evaluation", dict(module.named_parameters()))

        handle = run.module.register_forward_pre_hook(look)
        try:
            return evaluate(run)
        finally:
            handle.remove()

    monkeypatch.setattr(Controller, "start", started)
    monkeypatch.setattr(loop, "_step", stepped)
    monkeypatch.setattr(loop, "evaluate", evaluated)
    return watch


def removed_in(folder: Path, state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The masks of a checkpoint, read from its bits; True where removed."""
    masks = state["plugins"]["prune"]["masks"]
    return {n: unpack_bits(m["bits"], torch.Size(m["shape"])) for n, m in masks.items()}


def count_alive(weights: Mapping[str, Tensor], removed: Mapping[str, Tensor]) -> int:
    return sum(int(weights[n][r].view(torch.int32).count_nonzero()) for n, r in removed.items())


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "parts"), [("sgd", "2"), ("adamw", "1"), ("lamb", "2")])
def test_removed_weights_are_zero_wherever_one_looks(
    train: Train, watch: Watch, optimizer: str, parts: str
) -> None:
    optim = ("--optim.name", optimizer, "--optim.weight_decay", "0.05", "--optim.grad_clip", "0.1")
    folder = train(*PRUNE, *LONG, *AVERAGE, *optim, "--loader.accumulate", parts)
    assert watch.alive == {}
    places = {"weights", "average", *SLOTS[optimizer]}
    assert {place: watch.seen.get(place) for place in places} == dict.fromkeys(places, STEPS)
    assert watch.seen["evaluation"] > 2 * STEPS // 6  # an epoch has 6 steps; both kinds of weights
    state = load_state(folder / "checkpoints" / "last.safetensors")
    removed = removed_in(folder, state)
    total = watch.controller.store.total
    assert sum(int(r.sum()) for r in removed.values()) == round(SPARSITY * total)
    files = [load_file(folder / f"{name}.safetensors") for name in ("model", "model_ema")]
    for weights in (state["module"], state["ema"], *files):
        assert count_alive(weights, removed) == 0
        assert any(weights[name].count_nonzero() > 0 for name in removed)


def test_without_enforcement_they_come_back(
    train: Train, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MaskStore, "enforce", lambda self, parameters, optimizer: None)
    folder = train(*PRUNE, *AVERAGE)
    assert watch.alive.keys() == {"weights", "evaluation", "exp_avg", "exp_avg_sq"}
    state = load_state(folder / "checkpoints" / "last.safetensors")
    assert count_alive(state["module"], removed_in(folder, state)) > 0


def test_an_average_that_nobody_masks_remembers_them(
    train: Train, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MaskStore, "enforce_average", lambda self, average: None)
    folder = train(*PRUNE, *AVERAGE)
    assert watch.alive.keys() == {"average", "evaluation"}
    state = load_state(folder / "checkpoints" / "last.safetensors")
    removed = removed_in(folder, state)
    assert count_alive(state["ema"], removed) > 0
    assert count_alive(state["module"], removed) == 0


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "lamb"])
def test_sparsity_0_is_bit_identical_to_no_pruning(train: Train, optimizer: str) -> None:
    words = ("--trainer.ema_decay", "0.8", "--loader.accumulate", "2", "--optim.name", optimizer)
    plain = train(*words, out="plain")
    pruned = train(*words, *PRUNE[:2], "--prune.sparsity", "0", out="pruned")
    assert len(metrics(plain)) > 12
    assert metrics(plain) == metrics(pruned)
    for name in ("model", "model_ema"):
        ours, theirs = (load_file(f / f"{name}.safetensors") for f in (plain, pruned))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    first, second = (load_state(f / "checkpoints" / "last.safetensors") for f in (plain, pruned))
    for index, slots in first["optimizer"]["state"].items():
        for slot, value in slots.items():
            other = second["optimizer"]["state"][index][slot]
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(other))


def test_a_little_sparsity_is_not(train: Train) -> None:
    plain = train(out="plain")
    pruned = train(*PRUNE[:2], "--prune.sparsity", "0.01", out="pruned")
    assert metrics(plain) != metrics(pruned)


def metrics(folder: Path) -> list[tuple[str, str, str]]:
    """Everything logged that pruning should not change: not times, not its own numbers."""
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        return [
            (row["step"], row["name"], row["value"])
            for row in csv.DictReader(file)
            if not row["name"].startswith(("time/", "prune/"))
        ]
