"""Several methods in one run; everything is read from the files."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from ssm_core.train.checkpoint import load_state
from ssm_core.train.loggers import read_metrics
from ssm_prune import MethodSpec, PruneContext, PruneError, PruneOptions, Pruner
from ssm_prune.cli.main import main
from ssm_prune.loader import Method, PrunePlugins
from ssm_prune.masks import MaskStore, unpack_bits
from ssm_prune.stack import Stack
from ssm_prune.steps import RunLength
from ssm_prune.testing import ToyModel

Train = Callable[..., Path]
Interrupt = Callable[[int], AbstractContextManager[None]]
TIMES = ("--prune.begin", "1it", "--prune.end", "4it", "--prune.every", "1it")
COSINE = ("--prune", "dynamic-cosine", "--prune.sparsity", "0.5", *TIMES)
REMOVED = (*COSINE, "--prune.units", "channels", "--prune.remove", "true")
PATTERN = ("--prune.stack", '[{method: "n:m", begin: 6it}]')
LENGTH = ("--trainer.max_steps", "8", "--trainer.ema_decay", "0.5")
MATRICES = ("in_proj.weight", "out_proj.weight")


def last(folder: Path) -> dict[str, Any]:
    return load_state(folder / "checkpoints" / "last.safetensors")


def masks(state: dict[str, Any]) -> dict[str, Tensor]:
    """Parameter name -> True where the method of that state keeps the weight."""
    saved = state["masks"].items()
    return {n: ~unpack_bits(mask["bits"], torch.Size(mask["shape"])) for n, mask in saved}


def test_channels_are_taken_out_and_what_is_left_gets_the_pattern(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = train(*REMOVED, *PATTERN, *LENGTH)
    for name in ("model.safetensors", "model_ema.safetensors"):
        weights = load_file(folder / name)
        assert weights["tower.layers.0.mixer.D"].shape == (8,)  # of 16 channels
        for key in (n for n in weights if n.endswith(MATRICES)):
            groups = weights[key].unflatten(1, (-1, 4))
            assert ((groups != 0).sum(dim=2) == 2).all(), key
    report = json.loads((folder / "prune_report.json").read_text(encoding="utf-8"))
    assert (report["state"], report["achieved_sparsity"]) == ("removed", 0.5)
    (pattern,) = report["stack"]
    assert pattern["method"] == "n:m"
    assert pattern["achieved_sparsity"] == pattern["requested_sparsity"] > 0.3
    weights = load_file(folder / "model.safetensors")
    zeros = sum(int((weights[t["name"]] == 0).sum()) for t in report["tensors"])
    assert zeros == report["removed_weights"] == sum(t["removed"] for t in report["tensors"]) > 0
    logged = read_metrics(folder / "metrics.csv")
    assert logged["prune/sparsity"][-1][1] == 0.5
    assert logged["prune/n:m/sparsity"][4:6] == [(5, 0.0), (6, pattern["achieved_sparsity"])]
    page = (folder / "prune_report.html").read_text(encoding="utf-8")
    assert ">n:m<" in page
    capsys.readouterr()
    assert main(["verify", str(folder)]) == 0
    assert "all are 0" in capsys.readouterr().out


@pytest.mark.parametrize("step", [3, 5, 7])
def test_a_stack_goes_on_bit_for_bit(train: Train, interrupt: Interrupt, step: int) -> None:
    random = "[{method: gradient, begin: 5it, end: 8it, every: 1it, sparsity: 0.4}]"
    words = (*REMOVED, "--prune.stack", random, *LENGTH)
    whole = train(*words, out="whole")
    with interrupt(2 * step):  # two methods enforce their masks in each step
        stopped = train(*words, out="stopped", code=130)
    assert last(stopped)["step"] == step
    assert train(*words, "--resume", "auto", out="stopped") == stopped
    for name in ("model.safetensors", "model_ema.safetensors"):
        ours, theirs = load_file(stopped / name), load_file(whole / name)
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    first, second = (last(folder)["plugins"]["prune"] for folder in (stopped, whole))
    assert first["removals"] == second["removals"]
    (ours,), (theirs,) = first["stack"], second["stack"]
    assert ours["history"] == theirs["history"]
    for kept, expected in zip(masks(ours).values(), masks(theirs).values(), strict=True):
        assert torch.equal(kept, expected)


def test_a_weight_is_kept_only_if_every_method_keeps_it(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = train(*COSINE, "--prune.stack", "[{method: random, sparsity: 0.5, end: 6it}]", *LENGTH)
    state = last(folder)
    one = masks(state["plugins"]["prune"])
    other = masks(state["plugins"]["prune"]["stack"][0])
    slots = [slot["exp_avg"] for slot in state["optimizer"]["state"].values()]
    both = 0
    for name in one.keys() & other.keys():
        keep = one[name] & other[name]
        both += int((one[name] & ~other[name]).sum())
        for weights in (state["module"][name], state["ema"][name]):
            assert torch.equal(weights != 0, keep), name
        alike = [slot for slot in slots if slot.shape == keep.shape]
        assert any(not slot[~keep].any() for slot in alike), name
    assert both > 0  # each has removed what the other keeps
    capsys.readouterr()
    assert main(["verify", str(folder)]) == 0
    weights = load_file(folder / "model.safetensors")
    report = json.loads((folder / "prune_report.json").read_text(encoding="utf-8"))
    prunable = [weights[t["name"]] for t in report["tensors"] if t["may_be_pruned"]]
    assert report["removed_weights"] == sum(int((w == 0).sum()) for w in prunable)


def test_without_enforcement_of_the_second_method_its_weights_come_back(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    enforce, calls = MaskStore.enforce, [0]

    def only_first(self: MaskStore, *arguments: Any) -> None:
        calls[0] += 1
        if calls[0] % 2:
            enforce(self, *arguments)

    monkeypatch.setattr(MaskStore, "enforce", only_first)
    folder = train(*COSINE, "--prune.stack", "[{method: random, sparsity: 0.5, end: 6it}]", *LENGTH)
    state = last(folder)
    other = masks(state["plugins"]["prune"]["stack"][0])
    assert any(bool(state["module"][name][~keep].any()) for name, keep in other.items())
    assert main(["verify", str(folder)]) == 1


class Watch(Pruner):
    """Removes half at once, and looks at the gradients of what is removed."""

    def before_optimizer_step(self, ctx: PruneContext) -> None:
        weights = dict(ctx.prunable())
        self.seen = all(bool(w.grad.all()) for w in weights.values() if w.grad is not None)

    def after_optimizer_step(self, ctx: PruneContext) -> Any:
        scores = {name: torch.rand(w.shape, generator=ctx.rng) for name, w in ctx.prunable()}
        return ctx.prune_lowest(scores, 0.4) if ctx.step == 1 else None


def make_stack(entry: dict[str, Any], **options: Any) -> tuple[Stack, ToyModel, Any]:
    plugins = PrunePlugins(load_entry_points=False)
    specs = [MethodSpec("watch", Watch, ""), MethodSpec("other", Watch, "")]
    plugins.methods |= {spec.name: [Method(spec, "tests", "0")] for spec in specs}
    chosen = PruneOptions(stack=(entry,), **options)
    stack = Stack(plugins.method("watch"), chosen, plugins)
    torch.manual_seed(0)
    model = ToyModel()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    stack.start(model, optimizer, RunLength(9, 3), seed=0)
    return stack, model, optimizer


def test_every_method_sees_the_dense_gradients() -> None:
    stack, model, optimizer = make_stack({"method": "other"})
    for step in range(3):
        optimizer.zero_grad()
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        stack.before_optimizer_step(step)
        assert all(one.pruner.seen for one in stack.controllers)  # type: ignore[attr-defined]
        for one in stack.controllers:
            for name, parameter in one.parameters():
                assert parameter.grad is not None
                assert not parameter.grad[~one.store.mask(name)].any()
        optimizer.step()
        stack.after_optimizer_step(step + 1, lambda: None)
    first, second = (one.store.mask("in_proj.weight") for one in stack.controllers)
    assert not torch.equal(first, second)  # each has a generator of its own


def test_units_taken_out_under_the_masks_of_another_method_are_refused() -> None:
    stack, _, _ = make_stack({"method": "other"})
    stack.after_optimizer_step(1, lambda: None)
    with pytest.raises(PruneError, match="takes units out after 'other' has begun"):
        stack._removed(0, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((*COSINE, "--prune.stack", "[{method: n:n}]"), "unknown prune.stack[0].method 'n:n'"),
        ((*COSINE, "--prune.stack", "[{begin: 6it}]"), "prune.stack[0] has method None"),
        ((*COSINE, "--prune.stack", '[{method: "n:m", sparsity: 0.1}]'), "prune.stack[0].sparsity"),
        ((*COSINE, "--prune.stack", '[{method: "n:m", n: 5}]'), "prune.n is 5"),
        ((*COSINE, "--prune.stack", "[{method: random, stack: []}]"), "a stack of its own"),
        ((*COSINE, "--prune.stack", "[{method: dynamic-cosine}]"), "'dynamic-cosine' again"),
        ((*COSINE, "--prune.stack", "[{method: imp}]"), "'imp' goes back to an earlier step"),
        ((*COSINE, "--prune.stack", "[{method: random, units: states}]"), "whole units first"),
        (
            (*REMOVED, "--prune.stack", "[{method: random, units: channels}]"),
            "units channels as a method before it",
        ),
        (
            (*COSINE, "--prune.units", "channels", "--prune.stack",
             "[{method: random, units: states, remove: true}]"),
            "those that take units out first",
        ),
        (
            (*REMOVED, "--prune.stack", '[{method: "n:m", begin: 4it}]'),
            "'n:m' begins at step 4, expected one after step 4",
        ),
    ],
)  # fmt: skip
def test_methods_that_do_not_go_together_are_one_line(
    train: Train, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], expected: str
) -> None:
    train(*words, *LENGTH, code=2)
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("ssm-train: error: ")
    assert expected in lines[-1]


def test_a_run_is_not_resumed_with_another_stack(
    train: Train, interrupt: Interrupt, capsys: pytest.CaptureFixture[str]
) -> None:
    with interrupt(4):
        train(*COSINE, *PATTERN, *LENGTH, code=130)
    words = ("--resume", "auto", "--prune.force_resume", "true")
    train(*COSINE, "--prune.stack", "[]", *words, code=2)
    assert "resume with the prune.stack of the original run" in capsys.readouterr().err
    train(*COSINE, "--prune.stack", "[{method: random, end: 7it}]", *words, code=2)
    assert "pruned with 'n:m' of ssm-prune" in capsys.readouterr().err.splitlines()[-1]
