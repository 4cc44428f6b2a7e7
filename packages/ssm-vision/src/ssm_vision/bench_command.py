"""`ssm-train bench MODEL [MODEL ...]`: speed and memory against image size, table and picture."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, fields
from itertools import product
from pathlib import Path
from typing import Any

import torch

from ssm_core.errors import ConfigError
from ssm_vision import visualize, zoo
from ssm_vision.bench_figure import scaling_figure
from ssm_vision.benchmark import MODES, PRECISIONS, Case, Conditions, Row, measure_apart

#: column -> width and format of a number
COLUMNS = {
    "model": (28, ""),
    "image_size": (10, "d"),
    "batch_size": (10, "d"),
    "mode": (9, ""),
    "parameters": (12, ",d"),
    "latency_ms": (10, ".2f"),
    "images_per_s": (12, ".1f"),
    "memory_mb": (9, ".0f"),
}


def configure(parser: Any) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "models", type=str, nargs="+", help="names of ssm_vision.list_models(), baselines included"
    )
    parser.add_argument(
        "--image-size", type=int, nargs="+", default=[224], help="pixels of a side, one or more"
    )
    parser.add_argument("--batch-size", type=int, nargs="+", default=[1], help="one or more")
    parser.add_argument(
        "--mode",
        type=str,
        nargs="+",
        default=["inference"],
        help="inference, training (forward and backward) or both",
    )
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1")
    parser.add_argument(
        "--precision", type=str, default="float32", help=f"of autocast: {', '.join(PRECISIONS)}"
    )
    parser.add_argument("--threads", type=int | None, default=None, help="of the CPU")
    parser.add_argument("--seconds", type=float, default=3.0, help="timed runs of each case")
    parser.add_argument(
        "--out", type=str, default="bench", help="folder for bench.csv and bench.png"
    )


def run(arguments: Any) -> int:
    """Measure every case, print a line for each as it comes, and write table and picture."""
    cases, conditions = _cases(arguments), _conditions(arguments)
    out = Path(arguments.out)
    rows: list[Row] = []
    print(_described(conditions))
    print(_line({name: name for name in COLUMNS}))
    for case in cases:
        rows.append(measure_apart(case, conditions))
        print(_line(asdict(rows[-1])), flush=True)
        write_csv(out / "bench.csv", rows, conditions)  # an interrupted run keeps what it has
    print(out / "bench.csv")
    if any(row.images_per_s for row in rows):
        print(visualize.save(scaling_figure(rows, _described(conditions)), out / "bench.png"))
    return 0


def write_csv(path: Path, rows: Sequence[Row], conditions: Conditions) -> None:
    """All rows with the conditions they were measured under."""
    path.parent.mkdir(parents=True, exist_ok=True)
    extra = {"device": _device_name(conditions.device), "precision": conditions.precision}
    extra |= {"threads": str(conditions.threads or torch.get_num_threads())}
    extra |= {"torch": torch.__version__}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*(field.name for field in fields(Row)), *extra])
        writer.writeheader()
        writer.writerows(asdict(row) | extra for row in rows)


def _cases(arguments: Any) -> list[Case]:
    for name in arguments.models:
        zoo.find(name)
    for mode in arguments.mode:
        if mode not in MODES:
            raise ConfigError(f"--mode is {mode!r}, expected {' or '.join(MODES)}")
    for name in ("image_size", "batch_size"):
        least = min(getattr(arguments, name))
        if least < 1:
            option = name.replace("_", "-")
            raise ConfigError(f"--{option} is {least}, expected 1 or more")
    return [
        Case(model, size, batch, mode)
        for mode, model, batch, size in product(
            arguments.mode, arguments.models, arguments.batch_size, arguments.image_size
        )
    ]


def _conditions(arguments: Any) -> Conditions:
    if arguments.precision not in PRECISIONS:
        raise ConfigError(
            f"--precision is {arguments.precision!r}, expected one of {', '.join(PRECISIONS)}"
        )
    if arguments.threads is not None and arguments.threads < 1:
        raise ConfigError(f"--threads is {arguments.threads}, expected 1 or more")
    device = arguments.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.partition(":")[0] not in ("cpu", "cuda"):
        raise ConfigError(f"--device is {device!r}, expected auto, cpu, cuda or cuda:N")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"--device is {device!r}, but torch finds no CUDA device")
    return Conditions(device, arguments.precision, arguments.threads, arguments.seconds)


def _line(values: dict[str, Any]) -> str:
    cells = []
    for name, (width, form) in COLUMNS.items():
        value = values[name]
        text = "-" if value is None else format(value, "" if isinstance(value, str) else form)
        cells.append(text.ljust(width) if name in ("model", "mode") else text.rjust(width))
    return " ".join([*cells, values.get("note", "")]).rstrip()


def _described(conditions: Conditions) -> str:
    threads = conditions.threads or torch.get_num_threads()
    of_cpu = f", threads: {threads}" if conditions.device == "cpu" else ""
    return f"{_device_name(conditions.device)}{of_cpu}, {conditions.precision}"


def _device_name(device: str) -> str:
    return device if device == "cpu" else torch.cuda.get_device_name(device)
