"""Weights for a model by name: from a file, a run folder or the Hugging Face hub; loaded strictly.

Reading never runs code: safetensors, or PyTorch files with `weights_only=True`.
"""

from __future__ import annotations

import argparse
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ssm_core.errors import CheckpointError
from ssm_core.official.tensors import Tensors, collect, listed
from ssm_core.sizes import Sizes, sizes_in
from ssm_vision.official.containers import model_in
from ssm_vision.official.names import as_ours
from ssm_vision.official.strict import load_strictly

log = logging.getLogger(__name__)

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".pth.tar")
#: put before every name by wrappers for several GPUs and by `torch.compile`
WRAPPERS = ("module.", "_orig_mod.")
HUB_ID = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(?::(?P<file>.+))?")
#: of the files of a hub repository, the first that is there
HUB_FILES = ("model.safetensors", "pytorch_model.bin")


def locate(source: str | Path) -> Path:
    """Find the file of a checkpoint, fetching it if need be.

    Args:
        source: a .safetensors, .pth, .pt or .bin file; a run folder of ours; or "org/name" and
            "org/name:file" on the Hugging Face hub. What exists on the disk comes first.
    Raises:
        CheckpointError: nothing is there.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        if not (path / "model.safetensors").is_file():
            raise CheckpointError(
                f"{path}: no model.safetensors in this folder, expected a file or the folder of a "
                "finished run"
            )
        return path / "model.safetensors"
    if path.is_file():
        return path
    on_hub = HUB_ID.fullmatch(str(source))
    if on_hub is None or (path.name.endswith(SUFFIXES) and not on_hub["file"]):
        raise CheckpointError(
            f"{source}: no such file or folder, and no id of the Hugging Face hub (org/name or "
            "org/name:file)"
        )
    return download(on_hub["repository"], on_hub["file"])


def sizes_of(path: Path) -> list[Sizes]:
    """What was done to the sizes of the model in one file; nothing, if we did not write it."""
    from ssm_core.train.checkpoint import load_weights

    return sizes_in(load_weights(path)[1], path) if path.suffix == ".safetensors" else []


def read_file(path: Path) -> Tensors:
    """Read the tensors of one file by name, whatever script wrote it; they arrive on the CPU.

    Raises:
        CheckpointError: it is damaged, or reading it would run code.
    """
    if not path.name.endswith(SUFFIXES):
        raise CheckpointError(f"{path}: expected a file that ends in {', '.join(SUFFIXES)}")
    if path.suffix == ".safetensors":
        from ssm_core.train.checkpoint import load_weights

        return _unwrapped(load_weights(path)[0])
    return _unwrapped(collect(str(path), model_in(_load(path), ""), "", "."))


def fill(owner: str, model: nn.Module, tensors: Tensors, resized: bool) -> None:
    """Put the tensors into the model, all of them or none.

    Args:
        owner: the model's name, for messages.
        resized: the model has another image size or another number of classes than published:
            position embeddings are resampled where the model can (`adapt`), and a head of another
            shape stays as it is, which is said in one warning.
    Raises:
        CheckpointError: tensors are missing, left over or misshapen: one line with all of them.
    """
    load_strictly(owner, model, fitted(owner, model, tensors, resized))


def fitted(owner: str, model: nn.Module, tensors: Tensors, resized: bool) -> Tensors:
    """The tensors as `model` has them, under its names, with its own where a head does not fit."""
    tensors = as_ours(model, tensors)
    if not resized:
        return tensors
    own = model.state_dict()
    adapt: Callable[[Tensors], Tensors] | None = getattr(model, "adapt", None)
    adapted = tensors if adapt is None else adapt(tensors)
    untrained = [
        name
        for name in _head_names(model)
        if name not in adapted or adapted[name].shape != own[name].shape
    ]
    if untrained:
        log.warning(
            "%s: the checkpoint's head does not fit: %s untrained", owner, listed(untrained)
        )
    # what `adapt` leaves out because it does not know it is to be reported, not forgotten
    unknown = {name: value for name, value in tensors.items() if name not in own}
    return unknown | adapted | {name: own[name] for name in untrained}


def download(repository: str, file: str | None) -> Path:
    """Fetch one file of a hub repository into the cache of huggingface_hub, and return its path.

    Raises:
        CheckpointError: huggingface_hub is not installed, the hub cannot be reached, or the
            repository has no such file.
    """
    try:
        import huggingface_hub
    except ImportError:
        raise CheckpointError(
            f"{repository}: is no file or folder here, and the Hugging Face hub needs "
            "`pip install huggingface_hub`"
        ) from None
    try:
        chosen = file or _weights_among(repository, huggingface_hub.list_repo_files(repository))
        return Path(huggingface_hub.hf_hub_download(repository, chosen))
    except CheckpointError:
        raise
    except Exception as error:  # its kinds of error differ between versions and ways of transport
        reason = str(error).strip().split("\n")[0]
        raise CheckpointError(
            f"{repository}: is no file or folder here and cannot be had from the Hugging Face hub: "
            f"{type(error).__name__}: {reason}"
        ) from error


def _weights_among(repository: str, names: list[str]) -> str:
    usual = [name for name in HUB_FILES if name in names]
    others = [name for name in names if name.endswith(SUFFIXES)]
    if not usual and len(others) != 1:
        raise CheckpointError(
            f"{repository}: which of its files is not clear; pass {repository}:FILE with one of "
            f"{listed(others or names)}"
        )
    return (usual or others)[0]


def _load(path: Path) -> Any:
    try:
        # training scripts keep their arguments beside the weights; a Namespace runs no code
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file makes of pickle, zip and torch
        needed = re.findall(r"Unsupported global: GLOBAL (\S+)", str(error))
        if needed:
            raise CheckpointError(
                f"{path}: holds a {needed[0]} beside the weights, and reading that would run code; "
                "where you trust the file, save its tensors alone: "
                "torch.save(torch.load(path, weights_only=False)['model'], new_path)"
            ) from error
        reason = str(error).strip().split("\n")[0]
        raise CheckpointError(f"{path}: damaged or no PyTorch file ({reason})") from error


def _unwrapped(tensors: Tensors) -> Tensors:
    for wrapper in WRAPPERS:
        if tensors and all(name.startswith(wrapper) for name in tensors):
            tensors = {name.removeprefix(wrapper): value for name, value in tensors.items()}
    return tensors


def _head_names(model: nn.Module) -> list[str]:
    """Names of the classifier's parameters."""
    classifier: Callable[[], nn.Module] | None = getattr(model, "get_classifier", None)
    head = {id(parameter) for parameter in classifier().parameters()} if classifier else set()
    return [name for name, parameter in model.named_parameters() if id(parameter) in head]
