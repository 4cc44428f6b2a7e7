"""`ssm-prune plan`: verdicts, totals, and predictions that a training then meets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ssm_prune.cli.main import main

Train = Callable[..., Path]


def plan_of(path: Path, *words: str) -> dict[str, object]:
    assert main(["plan", *words, "--json", str(path)]) == 0
    content: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
    return content


def test_a_recipe_without_a_method_shows_the_policy(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_of(tmp_path / "plan.json", "toy")
    shown = capsys.readouterr().out
    rows = {row["name"]: row for row in plan["tensors"]}  # type: ignore[attr-defined]
    assert not rows["tower.layers.0.mixer.A_log"]["may_be_pruned"]
    assert "A = -1" in rows["tower.layers.0.mixer.A_log"]["reason"]
    assert rows["tower.layers.0.mixer.x_proj.weight"]["cap"] == 0.5
    assert rows["tower.layers.0.mixer.in_proj.weight"]["shape"] == [32, 8]
    assert "up to 50%" in shown
    assert "requested" not in shown
    assert not (tmp_path / "runs").exists()


def test_the_prediction_is_what_a_training_does(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--prune", "dynamic-cosine", "--prune.sparsity", "0.7", "--prune.end", "8it")
    plan = plan_of(tmp_path / "plan.json", "toy", *words)
    shown = capsys.readouterr().out
    assert "masked" in shown
    assert "70.00%" in shown
    report = json.loads((train(*words) / "prune_report.json").read_text(encoding="utf-8"))
    assert plan["gone"] == report["removed_weights"]
    assert plan["prunable"] == report["prunable_weights"]
    assert plan["mask_updates"]["end"] == report["schedule"]["end"] == 8  # type: ignore[index]
    assert plan["after"] == plan["before"]
    assert plan["before"]["flops"] == report["costs"]["pruned"]["flops"]  # type: ignore[index]


def test_units_are_predicted_smaller(train: Train, tmp_path: Path) -> None:
    words = ("--prune", "dynamic-cosine", "--prune.units", "channels", "--prune.sparsity", "0.5")
    plan = plan_of(tmp_path / "plan.json", "toy", *words)
    before, after = plan["before"], plan["after"]
    assert plan["state"] == "removed"
    assert plan["units"] == "channels"
    assert after["parameters"] < before["parameters"]  # type: ignore[index]
    assert after["flops"] < before["flops"]  # type: ignore[index]


def test_every_method_of_a_stack_is_in_the_plan(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--prune", "dynamic-cosine", "--prune.units", "channels", "--prune.sparsity", "0.5")
    stack = ("--prune.stack", '[{method: "n:m", begin: 90%}]')
    plan = plan_of(tmp_path / "plan.json", "toy", *words, *stack)
    (other,) = plan["stack"]  # type: ignore[misc]
    assert (other["method"], other["units"]) == ("n:m", "weights")
    assert other["mask_updates"]["begin"] == 11  # of 12 steps
    assert f"{other['requested_sparsity']:.2%} of the weights" in capsys.readouterr().out


def test_a_run_is_planned_with_its_own_options_or_others(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan_of(tmp_path / "a.json", str(run))["requested_sparsity"] == 0.6
    other = plan_of(tmp_path / "b.json", str(run), "--prune.sparsity", "0.3")
    assert other["requested_sparsity"] == 0.3
    capsys.readouterr()
    assert main(["plan", str(run), "--model", "toy-model"]) == 2
    assert "has its model already" in capsys.readouterr().err


def test_what_training_would_refuse_the_plan_refuses(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "toy", "--prune", "dynamic-cosine", "--prune.sparsity", "0.95"]) == 2
    assert "at most" in capsys.readouterr().err
    assert main(["plan", "toy", "--prune", "dynamic-cosine", "--prune.end", "13it"]) == 2
    assert "the run has 12 steps" in capsys.readouterr().err
