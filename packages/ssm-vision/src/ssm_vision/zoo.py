"""Models by name: state space models of the literature, those of our recipes, and baselines."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from torch import nn

from ssm_core import DataInfo, make_config
from ssm_core.errors import CheckpointError, ConfigError, UnknownNameError
from ssm_core.sizes import replay_sizes
from ssm_vision import checkpoints, presets
from ssm_vision.classifier import PatchClassifier
from ssm_vision.models.preset import Preset
from ssm_vision.models.registry import BASELINES, FAMILIES

ImageSize: TypeAlias = int | tuple[int, int]
"""Pixels of a side, or (rows, columns)."""

#: the family of the models whose trained weights come with the package
PACKAGED = "mnist"


def families() -> list[str]:
    """Groups of names: `list_models(family=...)` lists one of them."""
    return [*FAMILIES, PACKAGED, *BASELINES]


def list_models(pattern: str | None = None, *, family: str | None = None) -> list[str]:
    """The names that `create_model` knows, sorted.

    Args:
        pattern: only those that match, e.g. "*vmamba*".
        family: only those of one of `families()`, e.g. "vim" or "baselines".
    Raises:
        UnknownNameError: an unknown family; names the nearest.
    """
    if family is not None and family not in families():
        raise UnknownNameError.of("family", family, families())
    names = [name for name, group in _family_of().items() if family in (None, group)]
    return sorted(fnmatch.filter(names, pattern or "*"))


def create_model(
    name: str,
    *,
    pretrained: bool = False,
    checkpoint: str | Path | None = None,
    num_classes: int | None = None,
    in_chans: int | None = None,
    img_size: ImageSize | None = None,
    **overrides: Any,
) -> nn.Module:
    """Build a model by name: images (b, c, y, x) -> logits (b, classes).

    Args:
        name: one of `list_models()`.
        pretrained: load the weights that come with the package; needs no network. Only the
            `mnist_*` models have some, trained on images normalised with
            `ssm_vision.data.mnist.NORMALISATION`.
        checkpoint: load these weights: a .safetensors, .pth, .pt or .bin file, ours or of the
            original repository; a run folder of ours; or "org/name" and "org/name:file" on the
            Hugging Face hub.
        num_classes: outputs; 0 leaves the pooled features; default: as published.
        in_chans: channels of the images; default: as published.
        img_size: pixels of a side, or (rows, columns), for models with something to learn per
            place; default: as published.
        overrides: fields of the family's configuration instead of the published ones. A mapping
            replaces a whole mapping; `**{"mixer_options.d_state": 8}` sets one of its entries.
    Returns:
        The model, in evaluation mode if weights were loaded, else in training mode.
    Raises:
        UnknownNameError: an unknown model or option; names the nearest ones.
        ConfigError: a value that cannot be used, or one together with `pretrained`.
        CheckpointError: no such weights, or they do not fit; all names that do not match in one
            line. With another `img_size` or `num_classes` than published, position embeddings are
            resampled, a head that does not fit stays untrained and a warning says so.
    """
    preset = find(name)
    info, resized = _data_info(name, preset, num_classes, in_chans, img_size)
    if pretrained:
        if checkpoint is not None or resized or in_chans is not None or overrides:
            raise ConfigError(
                f"{name}: options cannot be changed together with pretrained=True, the weights fit "
                "the published options only"
            )
        return _packaged(name)
    model = preset.build(configured(name, preset.config, overrides), info)
    if checkpoint is not None:
        file = checkpoints.locate(checkpoint)
        replay_sizes(model, checkpoints.sizes_of(file))
        checkpoints.fill(name, model, checkpoints.read_file(file), resized)
        model.eval()
    if num_classes == 0:
        _without_head(name, model)
    return model


def find(name: str) -> Preset:
    """What is published under a name.

    Raises:
        UnknownNameError: nothing; names the nearest.
    """
    family = _family_of().get(name)
    if family is None:
        raise UnknownNameError.of("model", name, _family_of(), "(ssm_vision.list_models())")
    if family == PACKAGED:
        info = presets.PRESETS[name][1]
        channels, side, _ = info.input_shape
        config = presets.published_config(name)
        return Preset(PatchClassifier, config, side, info.n_outputs, channels)
    return (FAMILIES.get(family) or BASELINES[family])[name]


def configured(name: str, published: Any, overrides: Mapping[str, Any]) -> Any:
    """The published configuration with some fields replaced.

    Raises:
        UnknownNameError: a field that the family does not have; names the nearest.
        ConfigError: a value of the wrong type, or one that the family refuses.
    """
    if not overrides:
        return published
    options = {field.name: getattr(published, field.name) for field in fields(published)}
    known = [*options, "num_classes", "in_chans", "img_size", "checkpoint", "pretrained"]
    for key, value in overrides.items():
        head, _, entry = key.partition(".")
        if head not in options:
            raise UnknownNameError.of(f"option of {name}", key, known)
        if entry and not isinstance(options[head], Mapping):
            raise ConfigError(
                f"{name}: {key} is set, but {head} is {options[head]!r} and no mapping"
            )
        options[head] = {**options[head], entry: value} if entry else value
    return make_config(type(published), options, name)


@cache
def _family_of() -> dict[str, str]:
    """Name -> family, of all models."""
    groups: dict[str, Mapping[str, Any]] = {**FAMILIES, PACKAGED: presets.PRESETS, **BASELINES}
    return {name: family for family, names in groups.items() for name in names}


def _data_info(
    name: str,
    preset: Preset,
    num_classes: int | None,
    in_chans: int | None,
    img_size: ImageSize | None,
) -> tuple[DataInfo, bool]:
    """What the model is built for, and whether image size or classes are other than published."""
    sides = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size or ())
    if img_size is None:
        sides = (preset.image_size, preset.image_size)
    if len(sides) != 2 or any(not isinstance(side, int) or side < 1 for side in sides):
        raise ConfigError(f"{name}: img_size is {img_size!r}, expected pixels or (rows, columns)")
    channels = preset.in_chans if in_chans is None else in_chans
    if channels < 1:
        raise ConfigError(f"{name}: in_chans is {channels}, expected 1 or more")
    if num_classes is not None and num_classes < 0:
        raise ConfigError(f"{name}: num_classes is {num_classes}, expected 0 or more")
    classes = num_classes or preset.num_classes  # without a head it is built with one at first
    resized = sides != (preset.image_size,) * 2 or classes != preset.num_classes
    return DataInfo((channels, *sides), classes), resized


def _packaged(name: str) -> nn.Module:
    if name not in presets.PRESETS:
        raise CheckpointError(
            f"{name}: no weights come with the package; pass checkpoint= with a file, a run folder "
            "or an id of the Hugging Face hub (org/name)"
        )
    return presets.trained(name)


def _without_head(name: str, model: nn.Module) -> None:
    reset: Callable[[int], None] | None = getattr(model, "reset_classifier", None)
    if reset is None:
        raise ConfigError(f"{name}: num_classes is 0, expected 1 or more: its head cannot go")
    reset(0)
