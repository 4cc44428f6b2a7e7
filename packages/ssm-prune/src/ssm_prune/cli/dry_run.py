"""A pruning method set up on a model as a training would do it, without training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ssm_core.cli.fit import recipe_and_config
from ssm_core.errors import ConfigError
from ssm_core.plugins import PluginHost
from ssm_core.specs import DataInfo
from ssm_core.train.batches import train_loader
from ssm_core.train.folder import LAST, WEIGHTS, check_run_folder, read_info, read_status
from ssm_core.train.resolve import ResolvedConfig, read_yaml, resolve
from ssm_core.train.restore import load_run
from ssm_prune.cli.targets import data_of, refuse_path
from ssm_prune.controller import Controller
from ssm_prune.models import build_dense
from ssm_prune.stack import Stack
from ssm_prune.steps import RunLength


@dataclass(frozen=True)
class Subject:
    """What is to be pruned, how (`config`), and in how many steps."""

    config: ResolvedConfig
    info: DataInfo
    model: nn.Module
    length: RunLength


def find_subject(host: PluginHost, words: list[str]) -> Subject:
    """The subject of `RUN [--...]` or `RECIPE [--...]`, options as in `ssm-train fit`.

    Raises:
        ConfigError: unknown names or options, or options of the model for a run that has one.
    """
    if words and Path(words[0]).is_dir():
        return _of_run(host, Path(words[0]), words[1:])
    if words:
        refuse_path(words[0])
    config, _ = recipe_and_config(host, words, "ssm-prune plan")
    data = data_of(config)
    length = run_length(config, None)
    return Subject(config, data.info, build_dense(config, data.info), length)


def _of_run(host: PluginHost, folder: Path, words: list[str]) -> Subject:
    content = read_yaml(check_run_folder(folder) / "config.yaml")
    own = [w for w in words if w.split("=")[0].split(".")[0] in ("--model", "--data")]
    if own:
        raise ConfigError(f"{own[0]}: {folder} has its model already; name a recipe to change it")
    config = resolve(host, str(content.get("recipe", folder.name)), content, arguments=words)
    trained = any((folder / file).is_file() for file in (WEIGHTS, LAST))
    info = read_info(folder)
    model = load_run(folder, host=host).module if trained else build_dense(config, info)
    steps = read_status(folder).get("steps_per_epoch")
    return Subject(config, info, model, run_length(config, steps))


def run_length(config: ResolvedConfig, steps_per_epoch: int | None) -> RunLength:
    """How long a training would be; an epoch that is not known is counted in the data."""
    trainer = config.trainer
    if steps_per_epoch is None:
        loader = train_loader(data_of(config), config.loader, trainer.seed, rank=0, world=1)
        steps_per_epoch = len(loader)
    by_epochs = None if trainer.max_epochs is None else trainer.max_epochs * steps_per_epoch
    total = min(n for n in (by_epochs, trainer.max_steps) if n is not None)
    return RunLength(total, steps_per_epoch)


def start_methods(
    config: ResolvedConfig, model: nn.Module, length: RunLength
) -> Sequence[Controller]:
    """The controllers of the configuration's `prune` section, ready for their first step.

    Raises:
        PruneError, ConfigError: what a training would fail with before its first step.
    """
    stack: Stack = config.specs["prune"].build(config.typed["prune"]).stack
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    stack.start(model, optimizer, length, config.trainer.seed)
    return stack.controllers
