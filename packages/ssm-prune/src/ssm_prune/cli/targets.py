"""What a command is about: a run folder, a weights file, or the untrained model of a recipe."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import yaml
from torch import nn

from ssm_core.cli.fit import recipe_and_config
from ssm_core.errors import CheckpointError, ConfigError
from ssm_core.plugins import PluginHost
from ssm_core.specs import DataBundle, DataInfo
from ssm_core.train.checkpoint import load_weights, write_text
from ssm_core.train.folder import WEIGHTS, check_run_folder
from ssm_core.train.resolve import ResolvedConfig
from ssm_core.train.restore import RestoredRun, load_run
from ssm_prune.loader import PrunePlugins
from ssm_prune.models import DENSE, build_dense, state_of, verdicts_of


@dataclass(frozen=True)
class Target:
    """A model that a command works on.

    Attributes:
        name: what the user called it.
        model: with its weights, in evaluation mode, on the CPU.
        state: "dense", "masked" or "removed".
    """

    name: str
    info: DataInfo
    model: nn.Module
    state: str


def open_target(host: PluginHost, plugins: PrunePlugins, word: str) -> Target:
    """The model that `word` names: of a run folder, a weights file, or a recipe (untrained).

    Raises:
        ConfigError: none of these.
        CheckpointError: weights are missing, damaged or of another model.
    """
    path = Path(word)
    if not path.exists():
        refuse_path(word)
        config, _ = recipe_and_config(host, [word], "ssm-prune")
        info = data_of(config).info
        return Target(word, info, build_dense(config, info), DENSE)
    restored = load_file(host, path) if path.is_file() else load_run(path, host=host)
    dense = build_dense(restored.config, restored.info)
    state = state_of(restored.module, dense, verdicts_of(dense, plugins))
    return Target(word, restored.info, restored.module, state)


def load_file(host: PluginHost, path: Path) -> RestoredRun:
    """The model of a weights file that says itself what it is of, as those of runs do.

    Raises:
        CheckpointError: it does not, is damaged, or holds other weights than it says.
    """
    with tempfile.TemporaryDirectory() as folder:
        unpack_file(path, Path(folder))
        try:
            return load_run(Path(folder), host=host)
        except CheckpointError as error:
            text = str(error).replace(str(Path(folder) / WEIGHTS), str(path))
            raise CheckpointError(text) from error


def unpack_file(path: Path, folder: Path) -> None:
    """Make a run folder of a weights file: what a run writes into both of them is the same."""
    _, metadata = load_weights(path)
    missing = [key for key in ("recipe", "options", "info") if key not in metadata]
    if missing:
        raise CheckpointError(
            f"{path}: does not say what model it is of (no {', '.join(missing)} in its metadata), "
            "expected the model.safetensors of a run: give the run's folder instead"
        )
    try:
        options, info = (json.loads(metadata[key]) for key in ("options", "info"))
    except ValueError as error:
        raise CheckpointError(f"{path}: damaged metadata ({error})") from error
    shutil.copyfile(path, folder / WEIGHTS)
    write_text(folder / "info.json", json.dumps(info))
    write_text(folder / "config.yaml", yaml.safe_dump({"recipe": metadata["recipe"], **options}))


def weights_of(path: Path) -> Path:
    """The weights file of a run folder, or the file itself.

    Raises:
        ConfigError: neither is there.
        CheckpointError: the run is not finished.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise ConfigError(f"{path}: no such folder or file, expected a run folder")
    if not (check_run_folder(path) / WEIGHTS).is_file():
        raise CheckpointError(
            f"{path}: no {WEIGHTS} in it, the run is not finished: go on with `ssm-train fit ... "
            f"--resume {path}`"
        )
    return path / WEIGHTS


def data_of(config: ResolvedConfig) -> DataBundle:
    """The data of a configuration: finds them, or says how to get them."""
    data: DataBundle = config.specs["data"].build(config.typed["data"])
    return data


def refuse_path(word: str) -> None:
    """A path that leads nowhere must not be taken for a recipe's name."""
    if "/" in word or "\\" in word or word.endswith(".safetensors"):
        raise ConfigError(
            f"{word}: no such folder or file, expected a run folder or a weights file"
        )
