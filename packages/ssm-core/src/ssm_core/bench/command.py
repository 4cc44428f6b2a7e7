"""`ssm-train bench MODEL [MODEL ...]`: speed and memory against the size of the input."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from dataclasses import asdict, fields
from itertools import product
from pathlib import Path
from typing import Any

import torch

from ssm_core.bench.cases import MODES, PRECISIONS, Case, Conditions, Row
from ssm_core.bench.figure import scaling_figure
from ssm_core.bench.measure import measure_apart
from ssm_core.cli.parsing import OneLineParser
from ssm_core.errors import ConfigError, UnknownNameError
from ssm_core.plugins import PluginHost
from ssm_core.specs import BenchmarkSpec

#: column -> width and format of a number; size and per_s have other names in each kind
COLUMNS = {
    "model": (28, ""),
    "size": (10, "d"),
    "batch_size": (10, "d"),
    "mode": (9, ""),
    "parameters": (12, ",d"),
    "latency_ms": (10, ".2f"),
    "per_s": (12, ".1f"),
    "memory_mb": (9, ".0f"),
}


def bench_command(host: PluginHost, words: Sequence[str]) -> int:
    """Measure every case, print a line for each as it comes, and write table and picture."""
    specs = [registered.spec for registered in host.table("benchmarks").values()]
    arguments = _parser(specs).parse_args(list(words))
    spec = _kind_of(arguments.models, specs)
    cases, conditions = _cases(arguments, spec, specs), _conditions(arguments)
    out = Path(arguments.out)
    rows: list[Row] = []
    print(_described(conditions))
    print(_line({name: _named(name, spec) for name in COLUMNS}))
    for case in cases:
        rows.append(measure_apart(case, conditions, spec.preload))
        print(_line(asdict(rows[-1])), flush=True)
        write_csv(out / "bench.csv", rows, conditions, spec)  # interrupted, it keeps what it has
    print(out / "bench.csv")
    if any(row.per_s for row in rows):
        scaling_figure(rows, spec, _described(conditions)).savefig(out / "bench.png", dpi=160)
        print(out / "bench.png")
    return 0


def write_csv(path: Path, rows: Sequence[Row], conditions: Conditions, spec: BenchmarkSpec) -> None:
    """All rows with the conditions they were measured under."""
    path.parent.mkdir(parents=True, exist_ok=True)
    extra = {"device": _device_name(conditions.device), "precision": conditions.precision}
    extra |= {"threads": str(conditions.threads or torch.get_num_threads())}
    extra |= {"torch": torch.__version__}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*(_named(field.name, spec) for field in fields(Row)), *extra])
        writer.writerows([*asdict(row).values(), *extra.values()] for row in rows)


def _parser(specs: Sequence[BenchmarkSpec]) -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="ssm-train bench",
        description="Time models by name and measure their memory, against the size of the input.",
    )
    known = "; ".join(f"{spec.name}: {spec.help}" for spec in specs)
    parser.add_argument("models", nargs="+", help=f"names ({known})")
    for spec in specs:
        parser.add_argument(
            _option(spec), type=int, nargs="+", help=f"{spec.size_label}, one or more"
        )
    parser.add_argument("--batch-size", type=int, nargs="+", default=[1], help="one or more")
    parser.add_argument(
        "--mode",
        nargs="+",
        default=["inference"],
        help="inference, training (forward and backward) or both",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    parser.add_argument(
        "--precision", default="float32", help=f"of autocast: {', '.join(PRECISIONS)}"
    )
    parser.add_argument("--threads", type=int, help="of the CPU")
    parser.add_argument("--seconds", type=float, default=3.0, help="timed runs of each case")
    parser.add_argument("--out", default="bench", help="folder for bench.csv and bench.png")
    return parser


def _kind_of(models: Sequence[str], specs: Sequence[BenchmarkSpec]) -> BenchmarkSpec:
    """The one kind that knows all the models."""
    names = {name: spec for spec in specs for name in spec.models()}
    for model in models:
        if model not in names:
            raise UnknownNameError.of("model", model, names)
        if names[model] is not names[models[0]]:
            raise ConfigError(
                f"{models[0]} is timed against {_option(names[models[0]])}, {model} against "
                f"{_option(names[model])}: time them apart"
            )
    return names[models[0]]


def _cases(
    arguments: argparse.Namespace, spec: BenchmarkSpec, specs: Sequence[BenchmarkSpec]
) -> list[Case]:
    given = vars(arguments)
    for other in specs:
        if other is not spec and given[other.size] is not None:
            raise ConfigError(
                f"{_option(other)} is for {other.name}, but {arguments.models[0]} is one of "
                f"{spec.name}: use {_option(spec)}"
            )
    for mode in arguments.mode:
        if mode not in MODES:
            raise ConfigError(f"--mode is {mode!r}, expected {' or '.join(MODES)}")
    sizes = given[spec.size] or [spec.default_size]
    for option, values in ((_option(spec), sizes), ("--batch-size", arguments.batch_size)):
        if min(values) < 1:
            raise ConfigError(f"{option} is {min(values)}, expected 1 or more")
    return [
        Case(spec.name, model, size, batch, mode)
        for mode, model, batch, size in product(
            arguments.mode, arguments.models, arguments.batch_size, sizes
        )
    ]


def _conditions(arguments: argparse.Namespace) -> Conditions:
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


def _option(spec: BenchmarkSpec) -> str:
    return "--" + spec.size.replace("_", "-")


def _named(column: str, spec: BenchmarkSpec) -> str:
    """The name of a column for who reads about one kind of models."""
    return {"size": spec.size, "per_s": f"{spec.unit}_per_s"}.get(column, column)


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
