"""The small models of the MNIST recipes, whose trained weights come with the package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from ssm_core import DataInfo, make_config
from ssm_core.errors import ConfigError
from ssm_vision import pretrained as weights_files
from ssm_vision.classifier import PatchClassifier, PatchClassifierConfig
from ssm_vision.data import mnist

RECIPES = Path(__file__).parent / "recipes"
#: model name -> the recipe that holds its options, and the data it is built for
PRESETS: dict[str, tuple[str, DataInfo]] = {
    "mnist_bimamba": ("mnist-bimamba", mnist.INFO),
    "mnist_causal": ("mnist-causal", mnist.INFO),
    "mnist_rnn": ("mnist-rnn", mnist.INFO),
    "mnist_transformer": ("mnist-transformer", mnist.INFO),
}


def published_config(name: str) -> PatchClassifierConfig:
    """The options of one of `PRESETS`, those of its recipe."""
    recipe, _ = PRESETS[name]
    return make_config(PatchClassifierConfig, recipe_options(recipe), name)


def trained(name: str) -> PatchClassifier:
    """One of `PRESETS` with its weights, in evaluation mode; it reads images (b, 1, 28, 28)
    normalised with `ssm_vision.data.mnist.NORMALISATION`.

    Raises:
        CheckpointError: the weights are missing, damaged or of other options.
    """
    recipe, info = PRESETS[name]
    model = PatchClassifier(published_config(name), info)
    weights_files.load_into(model, weights_files.path_of(name), recipe)
    return model.eval()


def recipe_options(recipe: str) -> dict[str, Any]:
    """The model section of a recipe of this package, without its name."""
    content = yaml.safe_load((RECIPES / f"{recipe}.yaml").read_text(encoding="utf-8"))
    return {key: value for key, value in content["model"].items() if key != "name"}


def save_pretrained(name: str, model: PatchClassifier, figures: Mapping[str, Any]) -> Path:
    """Write trained weights into the package, where `trained` finds them.

    Args:
        figures: what was measured, e.g. {"accuracy": 0.98, "seed": 0}; JSON values.
    Raises:
        ConfigError: the model has other options than the recipe.
    """
    recipe, _ = PRESETS[name]
    expected = published_config(name)
    if model.config != expected:
        raise ConfigError(
            f"{name}: the model's options {asdict(model.config)} are not those of the recipe "
            f"{recipe}: {asdict(expected)}"
        )
    path = weights_files.path_of(name)
    weights_files.save(model, path, recipe, figures)
    return path
