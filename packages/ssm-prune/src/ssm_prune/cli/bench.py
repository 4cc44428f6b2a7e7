"""`ssm-prune bench A B`: two models side by side."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ssm_core.cli.parsing import OneLineParser
from ssm_core.cli.tables import print_columns
from ssm_core.errors import ConfigError
from ssm_core.plugins import plugin_host
from ssm_core.train.checkpoint import write_text
from ssm_core.train.folder import processor, versions
from ssm_prune.cli.targets import Target, open_target
from ssm_prune.costs import example_input
from ssm_prune.latency import LEAST_REPETITIONS, compare
from ssm_prune.loader import prune_plugins
from ssm_prune.models import DENSE, MASKED, REMOVED

WORDS = {
    DENSE: "dense",
    MASKED: "masked: stored and multiplied like a dense one",
    REMOVED: "removed: smaller than the dense one",
}


def bench_command(words: Sequence[str]) -> int:
    """Time A and B in turn and print how many times quicker B is."""
    arguments = _parser().parse_args(list(words))
    device = _check(arguments)
    pair = [open_target(plugin_host(), prune_plugins(), w) for w in (arguments.a, arguments.b)]
    if pair[0].info.input_shape != pair[1].info.input_shape:
        shapes = " and ".join(str(tuple(target.info.input_shape)) for target in pair)
        raise ConfigError(f"the models read inputs of different shapes, {shapes}: not comparable")
    rows = _measure(pair, arguments, device)
    models = [_describe(letter, target) for letter, target in zip("AB", pair, strict=True)]
    print_columns([(m["letter"], m["name"], f"{m['parameters']:,}", m["words"]) for m in models])
    print()
    _print(rows)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    print(f"{name}, medians of runs made in turn; in brackets 95 % of bootstrap samples")
    content = {"models": models, "device": name, "rows": rows, "versions": versions()}
    write_text(arguments.json, json.dumps(content, indent=2) + "\n")
    print(arguments.json)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="ssm-prune bench",
        description="Forward passes of two models, timed in turn in one process.",
    )
    for letter in ("a", "b"):
        parser.add_argument(letter, metavar=letter.upper(), help="run folder, weights file, recipe")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1")
    parser.add_argument("--batch", type=int, nargs="+", default=[1], help="batch sizes")
    parser.add_argument(
        "--threads", type=int, nargs="+", default=None, help="CPU threads; default: torch's"
    )
    parser.add_argument("--reps", type=int, default=30, help="runs of each model")
    parser.add_argument(
        "--json", type=Path, default=Path("prune_bench.json"), help="where to write the figures"
    )
    return parser


def _check(arguments: argparse.Namespace) -> torch.device:
    for name in ("batch", "threads"):
        if any(value < 1 for value in getattr(arguments, name) or ()):
            raise ConfigError(f"--{name} is {getattr(arguments, name)}, expected 1 or more")
    if arguments.reps < LEAST_REPETITIONS:
        raise ConfigError(f"--reps is {arguments.reps}, expected {LEAST_REPETITIONS} or more")
    try:
        torch.empty(0, device=arguments.device)
        return torch.device(arguments.device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"--device {arguments.device} cannot be used here: {reason}") from None


def _measure(
    pair: Sequence[Target], arguments: argparse.Namespace, device: torch.device
) -> list[dict[str, Any]]:
    before = torch.get_num_threads()
    models = tuple(target.model.to(device) for target in pair)
    rows = []
    try:
        for threads in arguments.threads or [before]:
            torch.set_num_threads(threads)
            for batch in arguments.batch:
                first, second = (example_input(m, pair[0].info, batch) for m in models)
                found = compare((models[0], models[1]), (first, second), arguments.reps)
                rows.append({"batch": batch, "threads": threads, **asdict(found)})
    finally:
        torch.set_num_threads(before)
    return rows


def _describe(letter: str, target: Target) -> dict[str, Any]:
    return {
        "letter": letter,
        "name": target.name,
        "state": target.state,
        "words": WORDS[target.state],
        "parameters": sum(p.numel() for p in target.model.parameters()),
    }


def _print(rows: Sequence[dict[str, Any]]) -> None:
    table = [("batch", "threads", "A ms", "B ms", "A / B", "")]
    for row in rows:
        times = (f"{row['first_ms']:.3f}", f"{row['second_ms']:.3f}", f"{row['ratio']:.3f}")
        between = f"({row['low']:.3f} to {row['high']:.3f})"
        table.append((str(row["batch"]), str(row["threads"]), *times, between))
    print_columns(table)
