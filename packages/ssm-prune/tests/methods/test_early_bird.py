"""Early-bird tickets in training: when they are drawn, and what happens when none emerges."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ssm_core.errors import ConfigError
from ssm_core.train.checkpoint import load_state
from ssm_prune import MethodSpec, NotPrunedError, Problem, PruneError, hookimpl
from ssm_prune.loader import PrunePlugins
from ssm_prune.methods.early_bird import EarlyBird, EarlyBirdOptions
from ssm_prune.testing import ToyRun

SPEC = MethodSpec("early-bird", EarlyBird, "", EarlyBirdOptions)
Train = Callable[..., Path]
Interrupt = Callable[[int], AbstractContextManager[None]]
WORDS = ("--prune", "early-bird", "--prune.every", "1it", "--prune.end", "10it")
#: half of the 16 channels of each of two layers go
REMOVE = (*WORDS, "--prune.units", "channels", "--prune.remove", "true", "--optim.lr", "0.002")


def toy(plugins: PrunePlugins | None = None, **options: Any) -> ToyRun:
    return ToyRun(SPEC, {"every": 1, "end": 20, **options}, plugins=plugins)


def test_the_untrained_mask_is_not_a_candidate() -> None:
    run = toy()
    assert run.controller is not None
    assert run.controller.pruner.state_dict()["distances"]["masks"] == []
    run.step()
    assert len(run.controller.pruner.state_dict()["distances"]["masks"]) == 1


@pytest.mark.parametrize(("rule", "first"), [("window", 5), ("consecutive", 6)])
@pytest.mark.parametrize("every", [1, 2, 3])
def test_masks_that_never_change_give_a_ticket_as_early_as_can_be(
    monkeypatch: pytest.MonkeyPatch, rule: str, first: int, every: int
) -> None:
    run = toy(rule=rule, every=every)
    run.optimizer.param_groups[0]["lr"] = 0.0
    run.optimizer.param_groups[0]["weight_decay"] = 0.0
    controller = run.controller
    assert controller is not None
    for step in range(1, 25):
        run.step()
        gone = controller.store.total_pruned
        assert gone == (round(0.5 * controller.store.total) if step >= first * every else 0)
    notes = [entry["distances"] for entry in controller.history if "distances" in entry]
    assert [len(row) for row in notes] == [min(i, 4) for i in range(first)]
    changes = [entry for entry in controller.history if "distances" not in entry]
    assert [entry["step"] for entry in changes] == [first * every]
    controller.check_reached(24)


def test_the_ticket_is_the_largest_weights_of_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    run = toy()
    controller = run.controller
    assert controller is not None
    ask, before = controller.pruner.after_optimizer_step, {}

    def noted(ctx: Any) -> Any:
        before.update({name: p.detach().clone() for name, p in ctx.prunable()})
        return ask(ctx)

    monkeypatch.setattr(controller.pruner, "after_optimizer_step", noted)
    while not controller.store.total_pruned:
        run.step()
    sizes = {name: controller.store.mask(name) for name in ("in_proj.weight", "out_proj.weight")}
    kept = torch.cat([before[name][keep].abs() for name, keep in sizes.items()])
    gone = torch.cat([before[name][~keep].abs() for name, keep in sizes.items()])
    assert gone.max() <= kept.min()


@pytest.mark.parametrize(("on_miss", "gone"), [("fail", None), ("prune", 0.5), ("continue", 0.0)])
def test_no_ticket_by_the_end(on_miss: str, gone: float | None) -> None:
    run = toy(epsilon=0.0001, on_miss=on_miss, end=12)
    controller = run.controller
    assert controller is not None
    if gone is None:
        with pytest.raises(PruneError, match=r"no early-bird ticket .* \(step 12\).*on_miss"):
            run.finish()
        return
    for _ in range(14):
        run.step()
    assert controller.achieved == pytest.approx(gone, abs=0.002)
    controller.check_reached(14)


def test_a_ticket_that_a_check_stops_is_an_error_in_the_end() -> None:
    class Guard:
        @hookimpl
        def ssm_prune_check(self) -> list[Problem]:
            return [Problem("never")]

    plugins = PrunePlugins(load_entry_points=False)
    plugins.register(Guard(), "guard", "1")
    run = toy(plugins, epsilon=0.5)
    run.finish()
    assert run.controller is not None
    with pytest.raises(NotPrunedError, match=r"removed 0.0%.*changed masks 0 times.*step 5: never"):
        run.controller.check_reached(30)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsity": 0.95}, "hamming with prune.sparsity 0.95, expected normalised or jaccard"),
        ({"sparsity": 0.05}, "differ in at most 0.1 of"),
        ({"epsilon": 0.0}, "prune.epsilon is 0.0"),
    ],
)
def test_options_that_would_always_fire_or_never(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        EarlyBirdOptions(**options)
    assert "\n" not in str(error.value)
    assert EarlyBirdOptions(sparsity=0.95, distance="normalised").sparsity == 0.95


@pytest.mark.parametrize(("rule", "first"), [("window", 10), ("consecutive", 12)])
def test_an_end_before_the_first_possible_ticket_is_refused(rule: str, first: int) -> None:
    with pytest.raises(ConfigError, match=rf"prune.end is {first - 1} .* expected {first} or more"):
        toy(every=2, end=first - 1, rule=rule)
    assert toy(every=2, end=first, rule=rule).controller is not None


def test_by_default_a_candidate_is_taken_after_each_epoch() -> None:
    with pytest.raises(ConfigError, match=r"step 22, expected 50 or more: .* prune.every 1ep"):
        ToyRun(SPEC, {})


def losses(folder: Path) -> list[tuple[str, str, str]]:
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if not row["name"].startswith("time/")]
        return [(row["step"], row["name"], row["value"]) for row in rows]


def test_units_are_taken_out_on_emergence_and_a_kill_changes_nothing(
    train: Train, interrupt: Interrupt
) -> None:
    whole = train(*REMOVE, out="whole")
    weights = load_file(whole / "model.safetensors")
    assert weights["tower.layers.0.mixer.out_proj.weight"].shape == (8, 8)
    assert weights["tower.layers.1.mixer.A_log"].shape == (8, 4)
    report = json.loads((whole / "prune_report.json").read_text(encoding="utf-8"))
    rows = [entry["distances"] for entry in report["updates"] if "distances" in entry]
    assert 5 <= len(rows) <= 10
    assert all(value <= 0.1 for value in rows[-1])
    logged = [float(value) for _, name, value in losses(whole) if name == "prune/mask_distance"]
    assert logged == pytest.approx([max(row) for row in rows[1:]])
    for stop in (len(rows) - 1, len(rows), len(rows) + 1):
        with interrupt(stop):
            train(*REMOVE, out=f"killed-{stop}", code=130)
        resumed = train(*REMOVE, "--resume", "auto", out=f"killed-{stop}")
        assert losses(resumed) == losses(whole)
        ours = load_file(resumed / "model.safetensors")
        assert all(torch.equal(ours[name], weights[name]) for name in weights)
        states = [load_state(f / "checkpoints" / "last.safetensors") for f in (resumed, whole)]
        histories = [state["plugins"]["prune"]["history"] for state in states]
        assert histories[0] == histories[1]
