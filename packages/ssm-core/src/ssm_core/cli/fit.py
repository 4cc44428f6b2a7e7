"""`ssm-train fit`: configuration, run folder, resume."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ssm_core.cli.parsing import OneLineParser
from ssm_core.errors import ConfigError
from ssm_core.plugins import PluginHost
from ssm_core.train.resolve import ResolvedConfig, parser_for, read_yaml, resolve

#: may differ from the stored configuration when a run goes on; they do not change its numbers
FREE_ON_RESUME = {"trainer.accelerator", "loader.num_workers", "loader.eval_batch_size"}
#: an option of an extension that may be given then; if true, so may all others of its section
FORCE = "force_resume"


def fit_command(host: PluginHost, words: Sequence[str]) -> Path | None:
    """Train; returns the run folder on the first process when the run is complete, else None."""
    from ssm_core.train.fit import fit

    if "-h" in words or "--help" in words:
        _print_help(host, [w for w in words if w not in ("-h", "--help")])
        return None
    config, control = recipe_and_config(host, words, "ssm-train fit")
    folder, resume = _folder(control, config)
    if resume:
        config = _resumed_config(host, folder, words, config)
    first = int(os.environ.get("RANK", "0")) == 0
    if first:
        print(f"{'resuming' if resume else 'run'} {folder}", file=sys.stderr)
    try:
        run = fit(host, config, folder, resume)
    finally:
        if first and not any(folder.iterdir()):  # failed before there was anything to keep
            folder.rmdir()
    if run.stop_reason == "interrupted":
        if first:
            again = f"ssm-train fit {config.recipe} --resume {folder}"
            print(f"interrupted at step {run.step}; continue with: {again}", file=sys.stderr)
        raise KeyboardInterrupt
    return folder if first else None


def recipe_and_config(
    host: PluginHost, words: Sequence[str], program: str
) -> tuple[ResolvedConfig, argparse.Namespace]:
    """The resolved configuration of `RECIPE [options]` and the options that are not part of it."""
    recipe = _recipe_name(host, words, program)
    control, rest = _control_parser(program).parse_known_args(list(words[1:]))
    base = read_yaml(host.get("recipes", recipe).path)
    return resolve(host, recipe, base, control.config, rest), control


def _recipe_name(host: PluginHost, words: Sequence[str], program: str) -> str:
    if not words or words[0].startswith("-"):
        known = ", ".join(sorted(host.table("recipes"))) or "none installed"
        raise ConfigError(f"{program}: name a recipe first, one of: {known}")
    host.get("recipes", words[0])
    return words[0]


def _control_parser(program: str) -> argparse.ArgumentParser:
    parser = OneLineParser(prog=f"{program} RECIPE", add_help=False, allow_abbrev=False)
    parser.add_argument(
        "--config", type=Path, action="append", default=[], help="YAML laid over the recipe"
    )
    parser.add_argument("--out", type=Path, default=Path("runs"), help="where run folders are")
    parser.add_argument(
        "--resume",
        default="no",
        metavar="no|auto|RUN",
        help="auto: go on with the newest run of this recipe if it is unfinished, else start one",
    )
    return parser


def _folder(control: argparse.Namespace, config: ResolvedConfig) -> tuple[Path, bool]:
    """The run folder and whether it is resumed; all processes of a run agree on it."""
    from ssm_core.train.folder import check_run_folder, require_free

    if control.resume not in ("no", "auto"):
        return require_free(check_run_folder(Path(control.resume))), True
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return _agreed_folder(control, config)
    return _choose_folder(control, config)


def _choose_folder(control: argparse.Namespace, config: ResolvedConfig) -> tuple[Path, bool]:
    from ssm_core.train.folder import new_folder, newest_unfinished, require_free

    old = newest_unfinished(control.out, config.recipe) if control.resume == "auto" else None
    if old is not None:
        return require_free(old), True
    return new_folder(control.out, config.recipe), False


def _agreed_folder(control: argparse.Namespace, config: ResolvedConfig) -> tuple[Path, bool]:
    """Rank 0 chooses and tells the others."""
    from ssm_core.train.fabric import make_fabric

    fabric = make_fabric(config.trainer.accelerator, config.trainer.precision)
    fabric.launch()
    choice = ("", False)
    if fabric.is_global_zero:
        folder, resume = _choose_folder(control, config)
        choice = (str(folder), resume)
    path, resume = fabric.broadcast(choice)
    return Path(path), resume


def _resumed_config(
    host: PluginHost, folder: Path, words: Sequence[str], asked: ResolvedConfig
) -> ResolvedConfig:
    """The stored configuration; an option given now that differs from it is an error.

    A run that goes on under other options would be neither the old run nor a new one.
    """
    stored = read_yaml(folder / "config.yaml")
    if stored.get("recipe") != asked.recipe:
        raise ConfigError(f"{folder} is a run of {stored.get('recipe')!r}, not {asked.recipe!r}")
    control, rest = _control_parser("ssm-train fit").parse_known_args(list(words[1:]))
    resumed = resolve(host, asked.recipe, stored, control.config, rest)
    old = resolve(host, asked.recipe, stored)
    for section, options in resumed.options.items():
        for key, value in options.items():
            name = f"{section}.{key}"
            was = old.options.get(section, {}).get(key)
            free = name in FREE_ON_RESUME or key == FORCE or options.get(FORCE) is True
            if value != was and not free:
                raise ConfigError(
                    f"--{name} {value} differs from {was} in {folder}/config.yaml: leave it out, "
                    "or start a new run with --resume no"
                )
    return resumed


def _print_help(host: PluginHost, words: Sequence[str]) -> None:
    from ssm_core.train.resolve import FIXED

    print(_control_parser("ssm-train fit").format_help())
    if words:
        config, _ = recipe_and_config(host, words, "ssm-train fit")
        sections = {s: spec.config for s, spec in config.specs.items()} | FIXED
        print(parser_for(sections, f"ssm-train fit {words[0]}").format_help())
    else:
        print("ssm-train fit RECIPE --help lists the options of that recipe")
