"""Runs of `ssm-train` that are not repeated once finished, and what a table says about them."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from ssm_core.train.folder import processor, read_status, versions


def train(recipe: str, out: Path, options: Sequence[str]) -> Path:
    """Return the finished run of a recipe below `out`, training what is left to do.

    Args:
        options: further words of the command, "--data.root" and such.
    """
    if (done := finished(out, recipe)) is not None:
        return done
    command = [str(Path(sys.executable).with_name("ssm-train")), "fit", recipe]
    command += ["--out", str(out), "--resume", "auto", *options]
    print(f"==> {recipe} in {out}", flush=True)
    if subprocess.run(command).returncode:
        sys.exit(f"error: {recipe} failed, see above; give the command again")
    done = finished(out, recipe)
    if done is None:
        sys.exit(f"error: no finished run of {recipe} in {out}")
    return done


def finished(out: Path, recipe: str) -> Path | None:
    """The newest finished run of a recipe below `out`."""
    runs = [run for run in sorted(out.glob(f"{recipe}-*")) if (run / "status.json").is_file()]
    runs = [run for run in runs if run.name.removeprefix(f"{recipe}-").isdigit()]
    done = [run for run in runs if read_status(run)["state"] == "finished"]
    return done[-1] if done else None


def machine() -> str:
    """The machine in words."""
    return (
        f"{processor()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} threads"
    )


def installed() -> str:
    """The versions of everything that computes."""
    shown = {k: v for k, v in versions().items() if k not in ("platform", "processor")}
    return ", ".join(f"{name} {number}" for name, number in shown.items())
