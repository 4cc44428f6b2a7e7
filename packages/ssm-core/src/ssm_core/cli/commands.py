"""The commands of `ssm-train` that ssm-core brings."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from ssm_core.cli.fit import fit_command, recipe_and_config
from ssm_core.cli.parsing import OneLineParser
from ssm_core.cli.tables import print_columns
from ssm_core.config import parse_message
from ssm_core.errors import ConfigError
from ssm_core.plugins import PluginHost
from ssm_core.specs import CommandSpec


def list_command(host: PluginHost, words: Sequence[str]) -> int:
    """`ssm-train list [KIND]`."""
    parser = OneLineParser(prog="ssm-train list", description="What the packages offer.")
    kinds = [*host.kinds, "plugins"]
    parser.add_argument("kind", nargs="?", help=", ".join(kinds))
    kind = parser.parse_args(list(words)).kind
    for shown in [kind] if kind else kinds:
        if not kind:
            print(f"{shown}:")
        if shown == "plugins":
            rows = [(p, "loaded", "") for p in host.providers]
            rows += [(b.provider, "broken", b.error) for b in host.broken]
        else:
            table = host.table(shown)
            rows = [(n, table[n].spec.summary, f"[{table[n].provider}]") for n in sorted(table)]
        print_columns(rows, indent=0 if kind else 2)
    return 0


def show_command(host: PluginHost, words: Sequence[str]) -> int:
    """`ssm-train show RECIPE [--section.key value ...]`."""
    config, _ = recipe_and_config(host, words, "ssm-train show")
    print(config.to_yaml(), end="")
    return 0


def eval_command(host: PluginHost, words: Sequence[str]) -> int:
    """`ssm-train eval RUN [--section.key value ...]`."""
    from ssm_core.train.evaluate import evaluate_run

    parser = OneLineParser(prog="ssm-train eval", description="Evaluate a trained run.")
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments, overrides = parser.parse_known_args(list(words))
    metrics = evaluate_run(host, arguments.run, overrides)
    if arguments.json:
        print(json.dumps(metrics))
    else:
        print_columns([(name, f"{value:.6g}") for name, value in metrics.items()])
    return 0


def report_command(host: PluginHost, words: Sequence[str]) -> int:
    """`ssm-train report RUN [RUN ...] [--out FOLDER]`."""
    parser = OneLineParser(
        prog="ssm-train report", description="Tables, curves and pictures: one page."
    )
    parser.add_argument("runs", nargs="+", type=Path, help="run folders")
    parser.add_argument("--out", type=Path, help="folder to write to (one run: RUN/report)")
    arguments = parser.parse_args(list(words))
    alone = len(arguments.runs) == 1
    default = arguments.runs[0] / "report" if alone else Path("report")
    print_report(host, arguments.runs, arguments.out or default)
    return 0


def print_report(host: PluginHost, runs: Sequence[Path], folder: Path) -> None:
    """Write a report and show its table and the paths of its files."""
    from ssm_core.train.report import HEADER, report

    result = report(host, runs, folder)
    print_columns([HEADER, *result.rows])
    for file in result.files:
        print(file)


def _fit(host: PluginHost, words: Sequence[str]) -> int:
    folder = fit_command(host, words)
    if folder is not None:
        print_report(host, [folder], folder / "report")
    return 0


def _bench(host: PluginHost, words: Sequence[str]) -> int:
    from ssm_core.bench.command import bench_command

    return bench_command(host, words)


def _export(host: PluginHost, words: Sequence[str]) -> int:
    from ssm_core.export.command import export_command

    return export_command(host, words)


def run_plugin_command(spec: CommandSpec, words: Sequence[str]) -> int:
    """Run a plugin's command with its own arguments."""
    from jsonargparse import ArgumentError, ArgumentParser

    parser = ArgumentParser(
        prog=f"ssm-train {spec.name}", description=spec.summary, exit_on_error=False
    )
    spec.configure(parser)
    try:
        arguments = parser.parse_args(list(words))
    except ArgumentError as error:
        raise ConfigError(f"{parse_message(error)} (see ssm-train {spec.name} --help)") from None
    return spec.run(arguments)


BUILT_IN: dict[str, Callable[[PluginHost, Sequence[str]], int]] = {
    "list": list_command,
    "show": show_command,
    "fit": _fit,
    "eval": eval_command,
    "report": report_command,
    "bench": _bench,
    "export": _export,
}
