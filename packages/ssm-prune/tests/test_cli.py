"""Pruning inside `ssm-train fit`; zeros are counted in the saved files, not in the report."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from ssm_core import plugin_host
from ssm_core.cli import main
from ssm_core.train.checkpoint import load_state

PRUNED = ("in_proj.weight", "x_proj.weight", "dt_proj.weight", "out_proj.weight")
RAMP = ("--prune.begin", "2it", "--prune.end", "8it", "--prune.every", "1it")
Train = Callable[..., Path]
Interrupt = Callable[[int], AbstractContextManager[None]]


def prunable(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n: w for n, w in weights.items() if n.startswith("tower") and n.endswith(PRUNED)}


def zeros(weights: dict[str, Tensor]) -> int:
    return sum(int((w == 0).sum()) for w in prunable(weights).values())


def losses(folder: Path) -> list[tuple[str, str]]:
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        return [
            (row["step"], row["value"])
            for row in csv.DictReader(file)
            if row["name"] in ("train/loss", "eval/loss")
        ]


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_the_saved_weights_have_exactly_the_zeros_asked_for(train: Train, scope: str) -> None:
    words = ("--prune.sparsity", "0.7", "--prune.end", "75%", "--prune.every", "2it")
    folder = train("--prune", "dynamic-cosine", *words, "--prune.scope", scope)
    weights = load_file(folder / "model.safetensors")
    total = sum(w.numel() for w in prunable(weights).values())
    tolerance = 0 if scope == "global" else len(prunable(weights)) / 2
    assert abs(zeros(weights) - round(0.7 * total)) <= tolerance
    untouched = {n: w for n, w in weights.items() if n not in prunable(weights) and w.ndim > 1}
    assert not any((w == 0).all() for w in untouched.values())
    report = json.loads((folder / "prune_report.json").read_text(encoding="utf-8"))
    assert report["removed_weights"] == zeros(weights)
    assert report["prunable_weights"] == total
    assert report["state"] == "masked"
    by_name = {tensor["name"]: tensor for tensor in report["tensors"]}
    for name, weight in weights.items():
        counted = int((weight == 0).sum()) if by_name[name]["may_be_pruned"] else 0
        assert by_name[name]["removed"] == counted
    assert "A = -1" in by_name["tower.layers.0.mixer.A_log"]["reason"]


def test_x_proj_and_dt_proj_keep_half_of_their_weights(train: Train) -> None:
    folder = train("--prune", "dynamic-cosine", "--prune.sparsity", "0.75", *RAMP)
    weights = prunable(load_file(folder / "model.safetensors"))
    capped = [w for n, w in weights.items() if "x_proj" in n or "dt_proj" in n]
    assert len(capped) == 4
    assert all(int((w == 0).sum()) <= w.numel() // 2 for w in capped)


def test_checkpoint_holds_no_weight_or_optimizer_slot_under_a_mask(train: Train) -> None:
    folder = train("--prune", "dynamic-cosine", *RAMP)
    state = load_state(folder / "checkpoints" / "last.safetensors")
    weights = prunable(state["module"])
    assert zeros(state["module"]) == round(0.8 * sum(w.numel() for w in weights.values()))
    for moment in ("exp_avg", "exp_avg_sq"):
        slots = [slot[moment] for slot in state["optimizer"]["state"].values()]
        for name, weight in weights.items():
            # slots have no names in the file: one of that shape is zero wherever the weight is
            alike = [slot for slot in slots if slot.shape == weight.shape]
            assert any(not slot[weight == 0].any() for slot in alike), name
        assert any(slot[0].all() for slot in slots if slot.ndim)  # live ones are not zero


def test_the_metrics_follow_the_ramp(train: Train) -> None:
    folder = train("--prune", "dynamic-cosine", "--prune.sparsity", "0.5", *RAMP)
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["name"] == "prune/sparsity"]
    values = [float(row["value"]) for row in rows]
    assert [int(row["step"]) for row in rows] == list(range(1, 13))
    assert values[:2] == [0.0, 0.0]
    assert values == sorted(values)
    assert values[4] == pytest.approx(0.25, abs=1e-3)  # half way: cos(pi / 2) = 0
    assert values[7:] == pytest.approx([0.5] * 5, abs=1e-3)


def test_sparsity_0_is_bit_identical_to_no_pruning(train: Train) -> None:
    plain = train(out="plain")
    pruned = train("--prune", "dynamic-cosine", "--prune.sparsity", "0", *RAMP, out="pruned")
    assert losses(plain) == losses(pruned)
    assert len(losses(plain)) == 14  # 12 steps, an evaluation after each of 2 epochs
    ours, theirs = (load_file(f / "model.safetensors") for f in (plain, pruned))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("stop", "method"),
    [
        (1, ("dynamic-cosine", *RAMP)),
        (5, ("dynamic-cosine", *RAMP, "--prune.regrow", "gradient")),
        (8, ("dynamic-cosine", *RAMP)),
        (5, ("gradient", *RAMP)),
        (5, ("magnitude", "--prune.begin", "6it")),
    ],
)
def test_a_run_stopped_in_the_ramp_goes_on_bit_for_bit(
    train: Train, interrupt: Interrupt, stop: int, method: tuple[str, ...]
) -> None:
    words = ("--prune", *method, "--prune.sparsity", "0.6")
    whole = train(*words, out="whole")
    with interrupt(stop):
        train(*words, out="stopped", code=130)
    resumed = train(*words, "--resume", "auto", out="stopped")
    assert resumed.name == "toy-001"
    assert losses(resumed) == losses(whole)
    ours, theirs = (load_file(f / "model.safetensors") for f in (resumed, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    first, second = (load_state(f / "checkpoints" / "last.safetensors") for f in (resumed, whole))
    assert first["plugins"]["prune"]["history"] == second["plugins"]["prune"]["history"]


def test_a_run_that_removed_too_little_fails_and_names_what_blocked_it(
    train: Train, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "ssm_prune.methods.dynamic.DynamicCosine.after_optimizer_step", lambda self, ctx: None
    )
    folder = train("--prune", "dynamic-cosine", "--prune.sparsity", "0.5", *RAMP, code=2)
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert "asked to remove 50.0%" in message
    assert "removed 0.0%" in message
    assert "changed masks 0 times" in message
    assert zeros(load_file(folder / "model.safetensors")) == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--prune", "dynamic-cosin"), "'dynamic-cosine'"),
        (("--prune", "dynamic-cosine", "--prune.sparsty", "0.5"), "prune.sparsity"),
        (("--prune", "dynamic-cosine", "--prune.sparsity", "1.5"), "prune.sparsity is 1.5"),
        (("--prune", "dynamic-cosine", "--prune.end", "soon"), "prune.end is 'soon'"),
        (("--prune", "dynamic-cosine", "--prune.end", "13it"), "the run has 12 steps"),
        (("--prune", "dynamic-cosine", "--prune.ramp", "cosin"), "'cosine'"),
        (("--prune", "dynamic-cosine", "--prune.sparsity", "0.95"), "at most"),
        (("--prune", "dynamic-cosine", "--prune.allow_unsafe", "[A_lg]"), "'A_lg' matches no"),
    ],
)
def test_bad_input_is_one_line(
    train: Train, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], expected: str
) -> None:
    train(*words, code=2)
    lines = capsys.readouterr().err.strip().splitlines()
    assert expected in lines[-1]
    assert lines[-1].startswith("ssm-train: error: ")


def test_list_and_help_show_the_method_and_its_options(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list", "pruners"]) == 0
    assert "dynamic-cosine" in capsys.readouterr().out
    assert main(["fit", "toy", "--prune", "dynamic-cosine", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--prune.sparsity" in shown
    assert "fraction of the prunable weights" in shown
    assert plugin_host().broken == []


def test_a_pattern_comes_from_begin_on_and_the_report_says_where(train: Train) -> None:
    folder = train("--prune", "n:m", "--prune.begin", "3it")
    weights = prunable(load_file(folder / "model.safetensors"))
    report = json.loads((folder / "prune_report.json").read_text(encoding="utf-8"))
    left_out = report["left_out_by_method"]
    assert {name for name in weights if name not in left_out} >= {
        "tower.layers.0.mixer.in_proj.weight",
        "tower.layers.1.mixer.out_proj.weight",
    }
    for name, weight in weights.items():
        if name in left_out:
            assert bool((weight != 0).all())
        else:
            assert ((weight != 0).view(-1, 4).sum(dim=1) == 2).all()
    total = sum(weight.numel() for weight in weights.values())
    assert report["achieved_sparsity"] == report["requested_sparsity"] == zeros(weights) / total


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("magnitude", "--prune.score", "magnitud"), "prune.score 'magnitud': did you mean 'magn"),
        (("gradient", "--prune.criterion", "snip", "--prune.end", "9it"), "no meaning for snip"),
        (("n:m", "--prune.m", "7"), "2:7 fits no prunable tensor"),
        (("magnitude", "--prune.end", "9it"), "prune.end"),
        (("magnitude", "--prune.begin", "13it"), "prune.begin is 13it = step 13, but the run has"),
    ],
)
def test_what_a_method_cannot_do_is_said_in_one_line(
    train: Train, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    train("--prune", *words, code=2)
    error = capsys.readouterr().err.strip()
    assert message in error.splitlines()[-1]
