"""One of two processes that `test_distributed.py` starts: runs every case, writes what came out.

    python distributed_worker.py RANK FOLDER PORT PORT PORT PORT

Each process writes FOLDER/RANK.json: case -> what the test asserts on.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from distributed_cases import (
    RankRandom,
    gradient_run,
    random_scores,
    reduced,
    refused,
    stubborn,
)
from sharded_cases import replaced_twice, sharded

from ssm_core.cli import commands, main
from ssm_prune import MethodSpec, hookimpl, report_page
from ssm_prune.distributed import Processes
from ssm_prune.loader import prune_plugins
from ssm_prune.rewind import state_digest
from ssm_prune.stack import Stack

RANKS = 2
#: 16 channels become 8 in the middle of the run
REMOVED = ["--prune", "dynamic-cosine", "--prune.units", "channels", "--prune.remove", "true"]
REMOVED += ["--prune.sparsity", "0.5", "--prune.begin", "1it", "--prune.end", "4it"]
REMOVED += ["--prune.every", "1it", "--trainer.ema_decay", "0.9", "--trainer.max_steps", "8"]
#: two levels after the first, from the middle of an epoch of three steps on
LEVELS = ["--prune", "imp", "--prune.sparsity", "0.36", "--prune.levels", "2"]
LEVELS += ["--prune.rewind_step", "2it", "--trainer.ema_decay", "0.9", "--trainer.max_steps", "6"]


class RandomPlugin:
    """Offers `rank-random` to `ssm-train`."""

    @hookimpl
    def ssm_prune_methods(self) -> list[MethodSpec]:
        return [MethodSpec("rank-random", RankRandom, "other scores on every rank")]


@contextlib.contextmanager
def process_group(rank: int, folder: Path, case: str) -> Iterator[None]:
    """The group of one case."""
    store = f"file://{folder / case}.store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=RANKS)
    try:
        yield
    finally:
        dist.destroy_process_group()


def command_line(words: list[str], out: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """`ssm-train fit toy` as one of two processes that torchrun would start."""
    digests: list[str] = []
    check_reached = Stack.check_reached

    def noted(self: Stack, step: int) -> None:
        digests.append(state_digest(dict(self.first.model.state_dict())))
        check_reached(self, step)

    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setattr(Stack, "check_reached", noted)
        patch.setattr(commands, "print_report", lambda *arguments: None)
        patch.setattr(report_page, "draw_pictures", lambda *arguments: [])
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            code = main(["fit", "toy", "--out", str(out), *words])
    return {
        "code": code,
        "out": str(out),
        "weights": digests,
        "error": (errors.getvalue().strip().splitlines() or [""])[-1],
    }


def run_cases(rank: int, folder: Path, ports: list[str]) -> dict[str, Any]:
    half = slice(rank * 4, rank * 4 + 4)
    found: dict[str, Any] = {"joined": gradient_run(slice(None), parallel=False)}
    with process_group(rank, folder, "group"):
        found["random"] = random_scores()
        found["stubborn"] = stubborn()
        found["refused"] = refused(RankRandom)
        found["reduced"] = reduced(rank)
        found["halves"] = gradient_run(half, parallel=True)
        found["sharded"] = sharded(folder, rank, enforced=True)
        found["unenforced"] = sharded(folder, rank, enforced=False)
        found["replaced"] = replaced_twice(rank)
    prune_plugins().register(RandomPlugin(), "rank-random", "1")
    world = {"WORLD_SIZE": str(RANKS), "LOCAL_WORLD_SIZE": str(RANKS), "GROUP_RANK": "0"}
    world |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1"}
    world |= {"TORCHELASTIC_RUN_ID": "tests"}
    options = ["--prune.begin", "1it", "--prune.end", "8it", "--prune.every", "1it"]
    options += ["--trainer.ema_decay", "0.9", "--prune.sparsity", "0.7"]
    random = ["--prune", "rank-random", *options]
    world["MASTER_PORT"] = ports[0]
    found["run"] = command_line(random, folder / "agreed", world)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Processes, "of_first", lambda self, value: value)
        world["MASTER_PORT"] = ports[1]
        found["apart"] = command_line(random, folder / "apart", world)
    world["MASTER_PORT"] = ports[2]
    found["removed"] = command_line(REMOVED, folder / "removed", world)
    world["MASTER_PORT"] = ports[3]
    found["levels"] = command_line(LEVELS, folder / "levels", world)
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    number, place = int(sys.argv[1]), Path(sys.argv[2])
    results = run_cases(number, place, sys.argv[3:])
    (place / f"{number}.json").write_text(json.dumps(results), encoding="utf-8")
