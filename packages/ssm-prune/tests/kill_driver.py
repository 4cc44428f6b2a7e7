"""A process that has trained once, from which `test_kill.py` forks runs that kill themselves.

Reads one JSON line per run, {"words": [...], "point": NAME or null, "step": N}; answers with a line
that holds the exit code of the run, negative for a signal. The first run, which has everything
imported, happens in this process itself, the others in children.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import ssm_prune.host
from ssm_core.cli import commands, main
from ssm_core.train import checkpoint, loop, recorder
from ssm_prune import proposals, report_page
from ssm_prune.masks import MaskStore
from ssm_prune.stack import Stack


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Clock:
    """Optimizer steps completed, as the loop counts them."""

    def __init__(self) -> None:
        self.step = 0
        step = loop._step

        def counted(run: Any, *arguments: Any) -> Any:
            self.step = run.step + 1
            return step(run, *arguments)

        loop._step = counted


def before(owner: Any, name: str, when: Callable[[], bool]) -> None:
    """Kill the process instead of calling `owner.name`, once `when()` holds."""
    call = getattr(owner, name)

    def dying(*arguments: Any) -> Any:
        if when():
            die()
        return call(*arguments)

    setattr(owner, name, dying)


def after(owner: Any, name: str, when: Callable[[], bool]) -> None:
    """Kill the process right after `owner.name`, once `when()` holds."""
    call = getattr(owner, name)

    def dying(*arguments: Any) -> Any:
        call(*arguments)
        if when():
            die()

    setattr(owner, name, dying)


def inside_update(when: Callable[[], bool]) -> None:
    """Kill between two tensors of one mask update."""
    replace = MaskStore.replace

    def partly(self: MaskStore, masks: Any) -> None:
        names = sorted(masks)
        replace(self, {name: masks[name] for name in names[: len(names) // 2]})
        if when():
            die()
        replace(self, masks)

    MaskStore.replace = partly  # type: ignore[method-assign]


def inside_file(when: Callable[[], bool]) -> None:
    """Kill when half of a checkpoint has been written."""
    save = checkpoint.save_file

    def half(tensors: Any, path: Path, metadata: Any) -> None:
        save(tensors, path, metadata)
        if when():
            os.truncate(path, os.path.getsize(path) // 2)
            die()

    checkpoint.save_file = half


POINTS: dict[str, Callable[[Callable[[], bool]], None]] = {
    "before the step": lambda when: before(Stack, "before_optimizer_step", when),
    "before commit": lambda when: before(proposals, "carry_out", when),
    "inside a mask update": inside_update,
    "after commit, before enforcement": lambda when: before(MaskStore, "enforce", when),
    "after enforcement": lambda when: after(MaskStore, "enforce", when),
    "before the average is masked": lambda when: before(MaskStore, "enforce_average", when),
    "before a checkpoint": lambda when: before(recorder.Recorder, "save", when),
    "inside a checkpoint's file": inside_file,
    "before a checkpoint's renaming": lambda when: before(Path, "replace", when),
    "after a checkpoint's renaming": lambda when: before(checkpoint, "_sync_folder", when),
    "after a checkpoint": lambda when: after(recorder.Recorder, "save", when),
    "before the weights' file": lambda when: before(recorder, "save_weights", when),
    "before the report": lambda when: before(ssm_prune.host, "write_report", when),
}


def run(words: list[str], point: str | None, step: int) -> int:
    """Train in a child process; its exit code."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            if point is not None:
                clock = Clock()
                POINTS[point](lambda: clock.step >= step)
            code = main(words)
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    torch.set_num_threads(1)
    # pictures take twice as long as a run
    commands.print_report = lambda *arguments: None
    report_page.draw_pictures = lambda *arguments: []
    answers = os.fdopen(os.dup(1), "w")  # what runs print goes elsewhere
    os.dup2(2, 1)
    print(main(json.loads(sys.stdin.readline())["words"]), file=answers, flush=True)
    for line in sys.stdin:
        print(run(**json.loads(line)), file=answers, flush=True)
    os._exit(0)  # tearing PyTorch down takes seconds
