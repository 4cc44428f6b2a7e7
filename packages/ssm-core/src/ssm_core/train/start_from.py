"""Begin a run with trained weights: of a run, of a safetensors file or of a .pth file.

A module may say how foreign weights become its own by a method `adapt(tensors) -> tensors`: it
returns those that fit, resampled or renamed where that is needed, and leaves out what must be
trained anew (another head, say). Without it all tensors must fit.
"""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssm_core.errors import CheckpointError
from ssm_core.official.tensors import mismatches
from ssm_core.sizes import Sizes, sizes_in
from ssm_core.train.checkpoint import load_state, load_weights
from ssm_core.train.folder import LAST, WEIGHTS

#: under these keys training scripts keep the weights beside optimizer and options
CONTAINERS = ("model", "state_dict", "module")
#: of files that PyTorch wrote; all others are safetensors
PYTORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".tar")


def start_from(module: nn.Module, path: Path) -> list[str]:
    """Load weights into `module`; return the names of what keeps its initial values.

    Raises:
        CheckpointError: no such file, a damaged one, one that holds more than tensors and plain
            values, or tensors that do not fit.
    """
    tensors = read_tensors(path)
    adapt = getattr(module, "adapt", None)
    if adapt is not None:
        tensors = dict(adapt(tensors))
    own = module.state_dict()
    missing, wrong = mismatches(own, tensors)
    may_miss = adapt is not None and bool(tensors)
    problems = [text for text in (wrong, "" if may_miss else missing) if text]
    if problems:
        raise CheckpointError(f"{path}: does not fit this model: {'; '.join(problems)}")
    module.load_state_dict(tensors, strict=False)
    return [name for name in own if name not in tensors]


def sizes_of(path: Path) -> list[Sizes]:
    """The sizes of the model whose weights are in `path`, if they differ from its configuration."""
    if path.is_dir() and not (path / WEIGHTS).is_file():
        steps: list[Sizes] = load_state(path / LAST).get("sizes", [])
        return steps
    file = path / WEIGHTS if path.is_dir() else path
    if file.suffix in PYTORCH_SUFFIXES:
        return []
    return sizes_in(load_weights(file)[1], file)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The weights in a run folder, a safetensors file or a .pth file; nothing is executed."""
    if path.is_dir():
        weights = path / WEIGHTS
        return load_weights(weights)[0] if weights.is_file() else load_state(path / LAST)["module"]
    if path.suffix not in PYTORCH_SUFFIXES:
        return load_weights(path)[0]
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # holds the script's options
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path}: damaged, or holds more than tensors and plain values ({reason}); save its "
            "state dict alone, best as safetensors"
        ) from error
    return _state_dict(path, content)


def _state_dict(path: Path, content: Any) -> dict[str, Tensor]:
    for key in CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(v, Tensor) for v in content.values()):
        raise CheckpointError(
            f"{path}: no state dict in it: expected names and tensors, or these under one of "
            f"{', '.join(CONTAINERS)}"
        )
    return {str(name).removeprefix("module."): tensor for name, tensor in content.items()}
