"""Kill a run at random moments, resume it, and compare it bit for bit with an undisturbed one.

    .venv/bin/python tools/reproduce/kill_and_resume.py --kills 10 --out tools/reproduce/results

Writes kill_and_resume.md: when each kill came, and whether weights and metrics are equal.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from ssm_core.train.checkpoint import load_weights
from ssm_core.train.folder import WEIGHTS, read_status
from ssm_core.train.loggers import read_metrics

TRAIN = [sys.executable, "-c", "import sys; from ssm_core.cli import main; sys.exit(main())"]


def start(recipe: str, out: Path, options: list[str]) -> subprocess.Popen[bytes]:
    """Start `ssm-train fit` with `--resume auto`."""
    words = ["fit", recipe, "--out", str(out), "--resume", "auto", *options]
    return subprocess.Popen(
        [*TRAIN, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )


def finish(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process that must succeed."""
    _, error = process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"training failed: {error.decode()[-2000:]}")


def wait_for_training(folder: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until this process has written something, so that start-up is not all that is killed."""
    before = (folder / "metrics.csv").stat().st_size if (folder / "metrics.csv").exists() else 0
    while process.poll() is None:
        if (folder / "metrics.csv").exists() and (
            (folder / "metrics.csv").stat().st_size != before
        ):
            return
        time.sleep(0.01)


def numbers(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every logged value except times."""
    curves = read_metrics(folder / "metrics.csv")
    return {name: points for name, points in curves.items() if not name.startswith("time/")}


def compare(a: Path, b: Path) -> tuple[bool, bool]:
    """(weights equal, metrics equal), bit for bit."""
    first, second = load_weights(a / WEIGHTS)[0], load_weights(b / WEIGHTS)[0]
    same = first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)
    return same, numbers(a) == numbers(b)


def main() -> int:
    """Run the comparison; exit code 1 when anything differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="digits-bimamba")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for kill_and_resume.md")
    arguments, options = parser.parse_known_args()
    random.seed(arguments.seed)
    with tempfile.TemporaryDirectory() as scratch:
        whole, killed = Path(scratch, "whole"), Path(scratch, "killed")
        finish(start(arguments.recipe, whole, options))
        name = f"{arguments.recipe}-001"
        seconds = float(read_status(whole / name)["seconds"])  # of training, without start-up
        folder = killed / name
        steps = []
        for number in range(arguments.kills):
            process = start(arguments.recipe, killed, options)
            wait_for_training(folder, process)
            time.sleep(random.uniform(0, 1.2 * seconds / (arguments.kills + 1)))
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            if read_status(folder).get("state") == "finished":
                raise SystemExit(f"the run was complete before kill {number + 1}; nothing proved")
            last = max((s for s, _ in numbers(folder).get("train/loss", [])), default=0)
            steps.append(last)
            print(f"kill {number + 1} after step {last}", file=sys.stderr)
        finish(start(arguments.recipe, killed, options))
        weights, metrics = compare(whole / name, folder)
        versions = json.loads((folder / "versions.json").read_text())
    report = [
        f"# Kill and resume: `{arguments.recipe}`",
        "",
        f"{arguments.kills} times SIGKILL at random moments, each time `--resume auto`, then "
        "compared with an undisturbed run of the same recipe.",
        "",
        f"- killed after logged step: {', '.join(map(str, steps))}",
        f"- weights equal bit for bit: {'yes' if weights else 'NO'}",
        f"- metrics equal bit for bit (times aside): {'yes' if metrics else 'NO'}",
        f"- torch {versions['torch']}, Python {versions['python']}, {torch.get_num_threads()} "
        f"threads, {platform.machine()}",
        f"- command: `python tools/reproduce/kill_and_resume.py --kills {arguments.kills} "
        f"--seed {arguments.seed}`",
    ]
    text = "\n".join(report) + "\n"
    print(text)
    if arguments.out:
        (arguments.out / "kill_and_resume.md").write_text(text)
    return 0 if weights and metrics else 1


if __name__ == "__main__":
    raise SystemExit(main())
