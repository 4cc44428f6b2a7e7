"""Bring a trained model back from its run folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import nn

from ssm_core.errors import CheckpointError
from ssm_core.plugins import PluginHost, plugin_host
from ssm_core.sizes import replay_sizes, sizes_in
from ssm_core.specs import DataInfo
from ssm_core.task import Task
from ssm_core.train.checkpoint import load_state, load_weights
from ssm_core.train.folder import LAST, WEIGHTS, check_run_folder, read_info
from ssm_core.train.resolve import CHOSEN, FIXED, ResolvedConfig, read_yaml, resolve
from ssm_core.train.run import Run


@dataclass(frozen=True)
class RestoredRun:
    """A trained model and what it was trained for; the module is in evaluation mode."""

    folder: Path
    config: ResolvedConfig
    info: DataInfo
    task: Task
    module: nn.Module


def load_run(folder: Path, device: str = "cpu", host: PluginHost | None = None) -> RestoredRun:
    """Rebuild the model of a run folder with its newest weights.

    Raises:
        ConfigError: not a run folder.
        CheckpointError: no weights yet, damaged weights, or weights of another model.
    """
    host = host or plugin_host()
    config = read_config(host, check_run_folder(folder))
    info = read_info(folder)
    module = config.specs["model"].build(config.typed["model"], info)
    if (folder / WEIGHTS).is_file():
        path = folder / WEIGHTS
        weights, metadata = load_weights(path)
        sizes = sizes_in(metadata, path)
    else:
        path = folder / LAST
        state = load_state(path)
        weights, sizes = state["module"], state.get("sizes", [])
    module = replay_sizes(module, sizes)
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path}: of another model: {' '.join(str(error).split())}"
        ) from error
    task = config.specs["task"].build(config.typed["task"], info)
    return RestoredRun(folder, config, info, task, module.to(device).eval())


def read_task(host: PluginHost, folder: Path) -> Task:
    """The task of a run folder, without its model.

    Raises:
        SsmError: a file is missing or damaged, or what it names is not installed.
    """
    config = read_config(host, folder)
    task: Task = config.specs["task"].build(config.typed["task"], read_info(folder))
    return task


def read_config(host: PluginHost, folder: Path, arguments: Sequence[str] = ()) -> ResolvedConfig:
    """The configuration a run was started with, without its extensions.

    A finished model needs its model, data and task; what took part in its training (a pruner, say)
    need not be installed any more.
    """
    content = read_yaml(folder / "config.yaml")
    needed = {k: v for k, v in content.items() if k in CHOSEN or k in FIXED}
    return resolve(host, str(content.get("recipe", folder.name)), needed, arguments=arguments)


def weights_metadata(run: Run) -> dict[str, str]:
    """What makes a weights file readable by itself: recipe, options and data description."""
    return {
        "recipe": run.config.recipe,
        "options": json.dumps(run.config.options),
        "info": json.dumps(asdict(run.info)),
    }
