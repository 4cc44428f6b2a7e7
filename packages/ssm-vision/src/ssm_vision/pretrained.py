"""Weights kept as package data: safetensors files with the model's options and figures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ssm_core import make_config
from ssm_core.errors import CheckpointError
from ssm_vision.classifier import PatchClassifier, PatchClassifierConfig

FOLDER = Path(__file__).parent / "weights"


def path_of(name: str) -> Path:
    """Where the weights of a model lie."""
    return FOLDER / f"{name}.safetensors"


def load_into(model: PatchClassifier, path: Path, recipe: str) -> dict[str, Any]:
    """Load weights into `model` and return the figures stored with them.

    Raises:
        CheckpointError: the file is missing, damaged or of a model with other options.
    """
    from ssm_core.train.checkpoint import load_weights

    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such weights in this installation; train them with "
            f"`ssm-train fit {recipe}`, or use pretrained=False"
        )
    tensors, metadata = load_weights(path)
    try:
        options, figures = json.loads(metadata["model"]), json.loads(metadata["figures"])
    except (KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path}: carries no model options or figures; it was not written by save_pretrained"
        ) from error
    # through the dataclass: an option added since has its default in older files
    stored = asdict(make_config(PatchClassifierConfig, options, path.name))
    wanted = asdict(model.config)
    if stored != wanted:
        differing = {k for k, v in wanted.items() if stored[k] != v}
        raise CheckpointError(
            f"{path}: trained with another {', '.join(sorted(differing))} than the recipe {recipe}"
            "; install the package anew"
        )
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: of another model: {reason}") from error
    return dict(figures)


def save(model: PatchClassifier, path: Path, recipe: str, figures: Mapping[str, Any]) -> None:
    """Write the weights with what is needed to know them again: recipe, options, data, figures."""
    from ssm_core.train.checkpoint import save_weights

    metadata = {
        "recipe": recipe,
        "model": json.dumps(asdict(model.config)),
        "info": json.dumps(asdict(model.info)),
        "figures": json.dumps(dict(figures)),
    }
    save_weights(path, model, metadata)
