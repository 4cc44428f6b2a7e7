"""Half precision: scores of unscaled gradients, float32 weights, steps that overflow do not count.

Fabric has float16 on GPUs only and falls back to bfloat16 on the CPU, so these runs are given a
scaler for the CPU; the scaler, the loop and the host are those of a GPU.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision
from safetensors.torch import load_file
from torch import Tensor

from ssm_core import hookimpl
from ssm_core.train import fit, loop
from ssm_core.train.checkpoint import load_state
from ssm_core.train.recorder import loader_state
from ssm_prune import PruneContext
from ssm_prune.host import PruneExtension
from ssm_prune.methods.dynamic import DynamicCosine

Train = Callable[..., Path]
PRUNE = ("--prune", "dynamic-cosine", "--prune.sparsity", "0.6", "--prune.end", "100%")
EVERY = ("--prune.begin", "1it", "--prune.every", "1it")
OVERFLOWS = (1, 4, 5, 9)


class Float16(MixedPrecision):
    """As on a GPU, but computing in bfloat16: not every operator has float16 on the CPU."""

    def __init__(self) -> None:
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        super().__init__("16-mixed", "cpu", scaler)

    def forward_context(self) -> Any:
        return torch.autocast("cpu", dtype=torch.bfloat16)


@pytest.fixture
def scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs have a loss scaler."""
    monkeypatch.setattr(fit, "make_fabric", lambda *a: Fabric(accelerator="cpu", plugins=Float16()))


@pytest.fixture
def overflowing(monkeypatch: pytest.MonkeyPatch, scaled: None) -> list[int]:
    """The gradients of some batches are infinite; the number of every batch is recorded."""
    backward, batches = loop._backward, []

    def overflow(run: Any, batch: Any) -> Tensor:
        loss = backward(run, batch)
        batches.append(len(batches))
        if batches[-1] in OVERFLOWS:
            next(run.module.parameters()).grad[0] = torch.inf
        return loss

    monkeypatch.setattr(loop, "_backward", overflow)
    return batches


def prunable(weights: dict[str, Tensor]) -> list[Tensor]:
    ends = ("in_proj.weight", "x_proj.weight", "dt_proj.weight", "out_proj.weight")
    return [w for n, w in weights.items() if n.startswith("tower") and n.endswith(ends)]


def sparsities(folder: Path) -> dict[int, float]:
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["name"] == "prune/sparsity"]
    assert len({row["step"] for row in rows}) == len(rows)
    return {int(row["step"]): float(row["value"]) for row in rows}


@pytest.fixture
def gradients(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Largest gradient that the method is shown in each step."""
    seen: list[float] = []

    def look(self: DynamicCosine, ctx: PruneContext) -> None:
        seen.append(max(float(p.grad.abs().max()) for _, p in ctx.prunable()))

    monkeypatch.setattr(DynamicCosine, "before_optimizer_step", look)
    return seen


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "lamb"])
def test_steps_that_overflow_do_not_count(
    train: Train, overflowing: list[int], gradients: list[float], optimizer: str
) -> None:
    words = ("--optim.name", optimizer, "--trainer.ema_decay", "0.9", "--optim.warmup_steps", "3")
    folder = train(*PRUNE, *EVERY, *words)
    assert len(overflowing) == 12 + len(OVERFLOWS)
    assert len(gradients) == 12
    assert all(g < 100 for g in gradients)  # neither infinite nor times the scale of 1024
    assert list(sparsities(folder)) == list(range(1, 13))
    state = load_state(folder / "checkpoints" / "last.safetensors")
    assert (state["step"], state["skipped"]) == (12, len(OVERFLOWS))
    assert state["precision"]["scale"] == 2.0 ** (10 - len(OVERFLOWS))
    assert state["scheduler"]["last_epoch"] == 12
    for name in ("model", "model_ema"):
        weights = load_file(folder / f"{name}.safetensors")
        assert all(w.dtype == torch.float32 and w.isfinite().all() for w in weights.values())
        total = sum(w.numel() for w in prunable(weights))
        assert sum(int((w == 0).sum()) for w in prunable(weights)) == round(0.6 * total)


def test_the_ramp_is_that_of_a_run_without_overflow(
    train: Train, scaled: None, request: pytest.FixtureRequest
) -> None:
    calm = sparsities(train(*PRUNE, *EVERY, out="calm"))
    request.getfixturevalue("overflowing")
    assert sparsities(train(*PRUNE, *EVERY, out="overflowing")) == calm


@pytest.mark.parametrize("stop", [2, 4])
def test_a_run_stopped_between_overflows_goes_on_bit_for_bit(
    train: Train, overflowing: list[int], monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    whole = train(*PRUNE, *EVERY, out="whole")
    overflowing.clear()
    update = DynamicCosine.after_optimizer_step

    def interrupt(self: DynamicCosine, ctx: PruneContext) -> Any:
        if ctx.step > stop:
            raise KeyboardInterrupt
        return update(self, ctx)

    with monkeypatch.context() as patch:
        patch.setattr(DynamicCosine, "after_optimizer_step", interrupt)
        train(*PRUNE, *EVERY, out="stopped", code=130)
    # the step that was interrupted is done again, and so are the batches skipped before it
    state = load_state(tmp_folder(whole) / "stopped/toy-001/checkpoints/last.safetensors")
    assert state["step"] == stop
    del overflowing[state["step"] + state["skipped"] :]
    resumed = train(*PRUNE, *EVERY, "--resume", "auto", out="stopped")
    first, second = (load_state(f / "checkpoints/last.safetensors") for f in (whole, resumed))
    assert first["skipped"] == second["skipped"] == len(OVERFLOWS)
    assert all(torch.equal(first["module"][k], second["module"][k]) for k in first["module"])
    assert sparsities(whole) == sparsities(resumed)


def tmp_folder(run: Path) -> Path:
    return run.parent.parent


def test_another_level_goes_on_with_the_batch_after_its_step(
    train: Train, overflowing: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Skipped batches move the place in the data away from the number of the step."""
    backward, step_end, begin = loop._backward, PruneExtension.ssm_step_end, 7
    seen: list[tuple[int, int, float]] = []
    kept: list[Any] = []

    def watched(run: Any, batch: Any) -> Tensor:
        seen.append((run.level, run.epoch, float(batch[0].double().sum())))
        return backward(run, batch)

    @hookimpl
    def keep(self: PruneExtension, run: Any, metrics: dict[str, float]) -> None:
        step_end(self, run, metrics)
        if run.step == begin and run.level == 0:
            kept.extend([loader_state(run), run.skipped])

    @hookimpl
    def again(self: PruneExtension, run: Any) -> bool:
        if run.level:
            return False
        run.train_on(begin, *kept)
        return True

    monkeypatch.setattr(loop, "_backward", watched)
    monkeypatch.setattr(PruneExtension, "ssm_step_end", keep)
    monkeypatch.setattr(PruneExtension, "ssm_steps_done", again, raising=False)
    train(*PRUNE, *EVERY)
    first = [entry[1:] for entry in seen if entry[0] == 0]
    second = [entry[1:] for entry in seen if entry[0] == 1]
    assert kept[1] == 4
    assert len(second) == 12 - begin  # nothing overflows in the second level
    assert second == first[begin + kept[1] :]
    assert len({epoch for epoch, _ in second}) == 2


def test_gradients_that_always_overflow_end_the_run(
    train: Train,
    scaled: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    backward = loop._backward

    def overflow(run: Any, batch: Any) -> Tensor:
        loss = backward(run, batch)
        next(run.module.parameters()).grad[0] = torch.nan
        return loss

    monkeypatch.setattr(loop, "_backward", overflow)
    train(*PRUNE, *EVERY, code=2)
    assert "gradients are not finite, although the factor" in capsys.readouterr().err


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_bf16_mixed_prunes_float32_weights(
    train: Train, gradients: list[float], scope: str
) -> None:
    folder = train(*PRUNE, *EVERY, "--trainer.precision", "bf16-mixed", "--prune.scope", scope)
    weights = load_file(folder / "model.safetensors")
    assert all(w.dtype == torch.float32 for w in weights.values())
    total = sum(w.numel() for w in prunable(weights))
    tolerance = 0 if scope == "global" else len(prunable(weights)) / 2
    assert (
        abs(sum(int((w == 0).sum()) for w in prunable(weights)) - round(0.6 * total)) <= tolerance
    )
    assert len(gradients) == 12
