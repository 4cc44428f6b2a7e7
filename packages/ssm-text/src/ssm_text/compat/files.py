"""`mamba_ssm.utils.hf`: configuration and tensors of a model, from a folder or the hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from ssm_core.errors import CheckpointError
from ssm_core.official.tensors import Tensors
from ssm_text.hub import fetch
from ssm_text.pretrained import read_weights
from ssm_text.weight_files import CONFIG


def folder_of(model_name: str | Path) -> Path:
    """The folder of that name, or that of a repository of the Hugging Face hub (extra `hub`).

    Raises:
        CheckpointError: there is neither.
    """
    folder = Path(model_name).expanduser()
    return folder if folder.is_dir() else fetch(str(model_name))


def load_config_hf(model_name: str | Path) -> dict[str, Any]:
    """The content of a model's config.json.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    path = folder_of(model_name) / CONFIG
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read, expected JSON: {error}") from error
    return content


def load_state_dict_hf(
    model_name: str | Path,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Tensors:
    """The tensors of a model by name, of model.safetensors or pytorch_model.bin.

    Reading them never runs code.

    Args:
        device, dtype: where they go and what they become; None: the CPU, and unchanged.
    Raises:
        CheckpointError: there are none, or a file is damaged.
    """
    tensors = read_weights(folder_of(model_name))
    return {name: value.to(device or "cpu", dtype) for name, value in tensors.items()}
