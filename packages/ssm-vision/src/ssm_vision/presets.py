"""Models by name, built as in their recipes, with trained weights that come with the package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from ssm_core import DataInfo, make_config
from ssm_core.errors import ConfigError, UnknownNameError
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


def list_models() -> list[str]:
    """The names that `create_model` knows."""
    return sorted(PRESETS)


def create_model(
    name: str, pretrained: bool = False, options: Mapping[str, Any] | None = None
) -> PatchClassifier:
    """Build a model by name; with `pretrained`, with the weights that come with the package.

    The model expects images (b, 1, 28, 28) normalised with `ssm_vision.data.mnist.NORMALISATION`
    and is in evaluation mode if `pretrained`, else in training mode.

    Args:
        name: one of `list_models()`.
        pretrained: load the trained weights; needs no network.
        options: fields of `PatchClassifierConfig` that replace those of the recipe (a whole
            `mixer_options` at a time).
    Raises:
        UnknownNameError: an unknown model or option; names the nearest ones.
        ConfigError: `options` together with `pretrained`, or a value that cannot be used.
        CheckpointError: the weights are missing, damaged or of other options.
    """
    recipe, info = _preset(name)
    if pretrained and options:
        raise ConfigError(
            f"create_model({name!r}): options cannot be changed together with pretrained=True, "
            "the weights fit the recipe's options only"
        )
    config = make_config(
        PatchClassifierConfig, recipe_options(recipe) | dict(options or {}), "options"
    )
    model = PatchClassifier(config, info)
    if pretrained:
        weights_files.load_into(model, weights_files.path_of(name), recipe)
        model.eval()
    return model


def recipe_options(recipe: str) -> dict[str, Any]:
    """The model section of a recipe of this package, without its name."""
    content = yaml.safe_load((RECIPES / f"{recipe}.yaml").read_text(encoding="utf-8"))
    return {key: value for key, value in content["model"].items() if key != "name"}


def save_pretrained(name: str, model: PatchClassifier, figures: Mapping[str, Any]) -> Path:
    """Write trained weights into the package, where `create_model` finds them.

    Args:
        figures: what was measured, e.g. {"accuracy": 0.98, "seed": 0}; JSON values.
    Raises:
        ConfigError: the model has other options than the recipe.
    """
    recipe, _ = _preset(name)
    expected = create_model(name).config
    if model.config != expected:
        raise ConfigError(
            f"{name}: the model's options {asdict(model.config)} are not those of the recipe "
            f"{recipe}: {asdict(expected)}"
        )
    path = weights_files.path_of(name)
    weights_files.save(model, path, recipe, figures)
    return path


def _preset(name: str) -> tuple[str, DataInfo]:
    if name not in PRESETS:
        raise UnknownNameError.of("model", name, PRESETS, "(ssm_vision.list_models())")
    return PRESETS[name]
