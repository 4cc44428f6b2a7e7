"""SIGKILL at exact points of a pruned run: what goes on is, bit for bit, what was never stopped.

Two processes with different PYTHONHASHSEED take turns, so that a run goes on under another one than
it was started with.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from ssm_core.train.checkpoint import load_state

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are forked from a warm process"),
]
DRIVER = Path(__file__).with_name("kill_driver.py")

OPTIONS = ("--prune", "dynamic-cosine", "--prune.sparsity", "0.6", "--prune.begin", "1it")
OPTIONS += ("--prune.every", "1it", "--prune.end", "11it", "--trainer.ema_decay", "0.8")
OPTIONS += ("--loader.accumulate", "2")
OPTIONS += ("--trainer.checkpoint_every", "4")
#: two chains of kills, each of one run: where, and from which step on
CHAINS = [
    [
        ("before commit", 3),
        ("inside a checkpoint's file", 4),
        ("inside a mask update", 6),
        ("before the average is masked", 7),
        ("before a checkpoint's renaming", 8),
        ("after commit, before enforcement", 10),
        ("before the report", 12),
    ],
    [
        ("before the step", 1),
        ("after a checkpoint's renaming", 4),
        ("after enforcement", 5),
        ("before a checkpoint", 8),
        ("after a checkpoint", 8),
        ("inside a mask update", 11),
        ("before the weights' file", 12),
    ],
]


class Driver:
    """Runs `ssm-train fit toy` in forks of a warm process.

    Args:
        site: folder of the toy recipe, for `sys.path`.
        hash_seed: PYTHONHASHSEED of the process.

    Attributes:
        out: where its undisturbed run is.
    """

    def __init__(self, site: Path, hash_seed: str) -> None:
        path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH", "")]))
        own = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": hash_seed}
        own["CUDA_VISIBLE_DEVICES"] = ""  # autograd's threads for GPUs would not survive a fork
        self.process = subprocess.Popen(
            [sys.executable, str(DRIVER)],
            env={**os.environ, **own},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.out = Path()

    def start(self, out: Path, point: str | None = None, step: int = 0) -> None:
        """Start a run, or go on with the one in `out`, that dies at `point` from `step` on."""
        assert self.process.stdin is not None
        words = ["fit", "toy", "--out", str(out), "--resume", "auto", *OPTIONS]
        self.process.stdin.write(json.dumps({"words": words, "point": point, "step": step}) + "\n")
        self.process.stdin.flush()

    def code(self) -> int:
        """Wait for the exit code of the run."""
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())


@pytest.fixture(scope="module")
def drivers(toy_site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Driver]]:
    """Two processes with different hash seeds; each has made an undisturbed run."""
    drivers = [Driver(toy_site, seed) for seed in ("1", "2")]
    for driver in drivers:
        driver.out = tmp_path_factory.mktemp("whole")
        driver.start(driver.out)
    assert [driver.code() for driver in drivers] == [0, 0]
    yield drivers
    for driver in drivers:
        driver.process.communicate(timeout=60)


@pytest.mark.parametrize("chain", CHAINS, ids=["first", "second"])
def test_killed_runs_end_as_the_undisturbed_one(
    drivers: list[Driver], tmp_path: Path, chain: list[tuple[str, int]]
) -> None:
    for number, (point, step) in enumerate(chain):
        drivers[number % 2].start(tmp_path, point, step)
        assert drivers[number % 2].code() == -signal.SIGKILL, point
    drivers[len(chain) % 2].start(tmp_path)
    assert drivers[len(chain) % 2].code() == 0
    assert [folder.name for folder in tmp_path.iterdir()] == ["toy-001"]
    assert_same(drivers[0].out / "toy-001", tmp_path / "toy-001")


def test_the_hash_seed_changes_nothing(drivers: list[Driver]) -> None:
    one, other = (driver.out / "toy-001" for driver in drivers)
    assert_same(one, other)
    # the comparison can fail: one number less
    text = (other / "metrics.csv").read_text(encoding="utf-8")
    (other / "metrics.csv").write_text(text.replace("train/loss", "time/loss", 1), encoding="utf-8")
    with pytest.raises(AssertionError):
        assert_same(one, other)


def assert_same(one: Path, other: Path) -> None:
    """Everything that a run leaves behind is equal: files of weights, checkpoint, losses."""
    for name in ("model.safetensors", "model_ema.safetensors"):
        ours, theirs = load_file(one / name), load_file(other / name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    first, second = (flat(load_state(f / "checkpoints" / "last.safetensors")) for f in (one, other))
    assert first.keys() == second.keys()
    assert any(".masks." in key for key in first)
    assert any(".exp_avg." in f"{key}." for key in first)
    for key, value in first.items():
        # times have different numbers of digits; runs draw nothing from Python's and numpy's
        # generators, which the engine carries on but does not seed
        if key.endswith("metrics_size") or ".numpy" in key or ".python" in key:
            continue
        same = torch.equal(value, second[key]) if isinstance(value, Tensor) else None
        assert same if same is not None else value == second[key], key
    assert logged(one) == logged(other)
    assert any(name == "train/loss" for _, name, _ in logged(one))


def flat(state: Any, place: str = "") -> dict[str, Any]:
    """The leaves of a nested state, by place."""
    if isinstance(state, Mapping):
        items = [(str(key), value) for key, value in state.items()]
    elif isinstance(state, list):
        items = [(str(index), value) for index, value in enumerate(state)]
    else:
        return {place: state}
    return {k: v for key, value in items for k, v in flat(value, f"{place}.{key}").items()}


def logged(folder: Path) -> list[tuple[str, str, str]]:
    """All numbers of a run except times."""
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        return [
            (row["step"], row["name"], row["value"])
            for row in csv.DictReader(file)
            if not row["name"].startswith("time/")
        ]
