"""Kills at the borders of the levels of a run; what goes on is what was never stopped."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from ssm_core.train import loop
from ssm_core.train.checkpoint import load_state
from ssm_core.train.run import Run
from ssm_prune import host
from ssm_prune.controller import Controller

Train = Callable[..., Path]
IMP = ("--prune", "imp", "--prune.sparsity", "0.36", "--prune.levels", "2")
#: 6 steps are an epoch: levels begin in the middle of one
WORDS = (*IMP, "--prune.rewind_step", "8it", "--trainer.ema_decay", "0.5")


def die_before_the_file_is_there(patch: pytest.MonkeyPatch) -> None:
    replace = Path.replace

    def dying(self: Path, target: Path) -> Path:
        if Path(target).name.startswith("rewind-"):
            raise KeyboardInterrupt
        return replace(self, target)

    patch.setattr(Path, "replace", dying)


def die_before_the_checkpoint_names_the_file(patch: pytest.MonkeyPatch) -> None:
    save = host.save_rewind

    def dying(*arguments: Any) -> str:
        save(*arguments)
        raise KeyboardInterrupt

    patch.setattr(host, "save_rewind", dying)


def die_at_the_end_of_a_level(patch: pytest.MonkeyPatch) -> None:
    die_in(patch, Controller, "steps_done", 1)


def die_between_masks_and_weights(patch: pytest.MonkeyPatch) -> None:
    die_in(patch, Controller, "begin_level", 1)


def die_between_weights_and_checkpoint(patch: pytest.MonkeyPatch) -> None:
    die_in(patch, Run, "train_on", 2)


def die_after_the_new_checkpoint(patch: pytest.MonkeyPatch) -> None:
    step = loop._step

    def dying(run: Run, *arguments: Any) -> Any:
        if run.level == 1:
            raise KeyboardInterrupt
        return step(run, *arguments)

    patch.setattr(loop, "_step", dying)


def die_in(patch: pytest.MonkeyPatch, cls: type, name: str, call: int) -> None:
    method, calls = getattr(cls, name), []

    def dying(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return method(*arguments)

    patch.setattr(cls, name, dying)


def losses(folder: Path) -> list[tuple[str, str, str]]:
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if not row["name"].startswith("time/")]
        return [(row["step"], row["name"], row["value"]) for row in rows]


def content(value: Any) -> Any:
    """A state with its tensors as numbers, to be compared."""
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {key: content(item) for key, item in value.items()}
    return [content(item) for item in value] if isinstance(value, list) else value


KILLS = [
    die_before_the_file_is_there,
    die_before_the_checkpoint_names_the_file,
    die_at_the_end_of_a_level,
    die_between_masks_and_weights,
    die_between_weights_and_checkpoint,
    die_after_the_new_checkpoint,
]
#: the control draws random numbers for a level, which a replay must draw again; and its levels end
#: in the middle of an epoch
CONTROL = (*IMP, "--prune.rewind", "init", "--prune.reinit", "random", "--trainer.max_steps", "4")


@pytest.mark.parametrize(
    ("words", "kills"), [(WORDS, KILLS), (CONTROL, KILLS[2:4])], ids=["k", "control"]
)
def test_a_kill_at_any_border_is_replayed_bit_for_bit(
    train: Train,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    kills: list[Callable[[pytest.MonkeyPatch], None]],
) -> None:
    whole = train(*words, out="whole")
    wanted = load_state(whole / "checkpoints" / "last.safetensors")
    for kill in kills:
        with monkeypatch.context() as patch:
            kill(patch)
            train(*words, out=kill.__name__, code=130)
        resumed = train(*words, "--resume", "auto", out=kill.__name__)
        assert resumed.name == "toy-001"
        assert losses(resumed) == losses(whole), kill.__name__
        state = load_state(resumed / "checkpoints" / "last.safetensors")
        for part in ("module", "optimizer", "ema", "plugins", "level", "step"):
            assert content(state[part]) == content(wanted[part]), (kill.__name__, part)
        files = [sorted(p.name for p in (f / "checkpoints").iterdir()) for f in (resumed, whole)]
        assert files[0] == files[1], kill.__name__


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path, other: path.unlink(), "missing, expected the weights that this run goes"),
        (lambda path, other: other.replace(path), "its content is not the one it is named after"),
        (lambda path, other: path.write_bytes(b"x"), "damaged or not a safetensors file"),
    ],
)
def test_without_the_kept_weights_a_run_is_not_resumed(
    train: Train,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path, Path], object],
    message: str,
) -> None:
    with monkeypatch.context() as patch:
        die_at_the_end_of_a_level(patch)
        folder = train(*WORDS, code=130)
    (path,) = (folder / "checkpoints").glob("rewind-*.safetensors")
    damage(path, folder / "checkpoints" / "last.safetensors")
    if not (folder / "checkpoints" / "last.safetensors").is_file():
        path.with_name("last.safetensors").write_bytes(path.read_bytes())
    train(*WORDS, "--resume", "auto", code=2)
    lines = capsys.readouterr().err.strip().splitlines()
    assert message in lines[-1]
    assert path.name in lines[-1]
