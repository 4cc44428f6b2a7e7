"""Run folders: names, files and status.

runs/digits-bimamba-001/
    config.yaml  info.json  versions.json  status.json  metrics.csv  tensorboard/
    checkpoints/last.safetensors     everything needed to go on
    model.safetensors                the weights alone
    report/                          report.html: table, curves and pictures
"""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from ssm_core.errors import CheckpointError, ConfigError
from ssm_core.specs import DataInfo
from ssm_core.train.checkpoint import write_text

LAST = Path("checkpoints/last.safetensors")
WEIGHTS = Path("model.safetensors")
VERSIONED = ("ssm-kernels", "ssm-core", "ssm-vision", "ssm-text", "ssm-prune", "numpy")


def new_folder(out: Path, name: str) -> Path:
    """Make the next free folder `out/name-001`, `-002`, ..."""
    out.mkdir(parents=True, exist_ok=True)
    number = 1 + max((_number(p, name) for p in out.glob(f"{name}-*")), default=0)
    while True:
        folder = out / f"{name}-{number:03d}"
        try:
            folder.mkdir()
        except FileExistsError:  # another process was quicker
            number += 1
        else:
            return folder


def newest_unfinished(out: Path, recipe: str) -> Path | None:
    """The newest run of a recipe under `out` if it is unfinished, or None.

    Older unfinished ones are left alone: whoever has finished a run since has given them up.
    """
    for folder in sorted(out.glob(f"{recipe}-*"), key=lambda p: _number(p, recipe), reverse=True):
        if _number(folder, recipe) and (folder / "config.yaml").is_file():
            return None if read_status(folder).get("state") == "finished" else folder
    return None


def _number(folder: Path, name: str) -> int:
    tail = folder.name.removeprefix(f"{name}-")
    return int(tail) if tail.isdigit() else 0


def check_run_folder(folder: Path) -> Path:
    """Return `folder` if it is a run folder, or say what is wrong."""
    if not (folder / "config.yaml").is_file():
        raise ConfigError(f"{folder}: not a run folder (no config.yaml in it)")
    return folder


def require_free(folder: Path) -> Path:
    """Return `folder` unless a living process on this machine is training in it.

    Raises:
        ConfigError: two processes in one folder would overwrite each other's checkpoints.
    """
    status = read_status(folder)
    if status.get("state") == "running" and status.get("host") == platform.node():
        process = int(status["process"])
        if process != os.getpid() and _alive(process):
            raise ConfigError(
                f"{folder}: process {process} is training there; wait for it or stop it (if that "
                f"process is something else, delete {folder}/status.json)"
            )
    return folder


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it lives, and belongs to somebody else
        return True
    return True


def write_static(folder: Path, config_yaml: str, info: DataInfo) -> None:
    """Write what does not change during a run."""
    write_text(folder / "info.json", json.dumps(asdict(info), indent=1))
    write_text(folder / "versions.json", json.dumps(versions(), indent=1))
    write_text(folder / "config.yaml", config_yaml)  # last: it marks the folder as a run


def read_info(folder: Path) -> DataInfo:
    """The data description of a run."""
    content = _read_json(folder / "info.json")
    return DataInfo(
        tuple(content["input_shape"]), int(content["n_outputs"]), tuple(content["labels"])
    )


def write_status(folder: Path, state: str, **values: Any) -> None:
    """Write status.json: running, interrupted, failed or finished, and its figures."""
    write_text(folder / "status.json", json.dumps({"state": state, **values}, indent=1))


def read_status(folder: Path) -> dict[str, Any]:
    """status.json, or an empty mapping when the run was killed before writing one."""
    path = folder / "status.json"
    return _read_json(path) if path.is_file() else {}


def read_versions(folder: Path) -> dict[str, str]:
    """versions.json: interpreter, machine and packages of the run's last start."""
    return {name: str(value) for name, value in _read_json(folder / "versions.json").items()}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: missing or damaged ({error})") from error
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path}: damaged, holds {type(content).__name__}, expected an object"
        )
    return content


def versions() -> dict[str, str]:
    """Versions of the interpreter, the machine and the packages that decide a run's numbers."""
    found = {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processor": processor(),
        "torch": torch.__version__,  # with its build, e.g. +cpu, which the metadata leaves out
    }
    for name in VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def processor() -> str:
    """Name of the processor, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
