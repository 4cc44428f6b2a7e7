"""Options of a configuration file under the names that ours have."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from ssm_core.errors import ConfigError, UnknownNameError
from ssm_core.sizes import applied_sizes
from ssm_text.mamba_lm import MambaLM
from ssm_text.mamba_lm_blocks import mixer_config


def required(owner: str, config: Mapping[str, Any], names: Collection[str]) -> None:
    """Check that the configuration has these keys.

    Raises:
        ConfigError: names all that are missing.
    """
    missing = [name for name in names if name not in config]
    if missing:
        raise ConfigError(f"{owner}: config lacks {', '.join(missing)}")


def renamed(given: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The options that are given, under the names that ours have.

    Args:
        names: name of an option -> field of our configuration.
    """
    return {field: given[name] for name, field in names.items() if name in given}


def mixer_options(
    owner: str, given: Mapping[str, Any], kept: Collection[str], ignored: Collection[str]
) -> dict[str, Any]:
    """The options of a mixer that both call alike, without those that change nothing.

    Raises:
        UnknownNameError: an option that is in neither list; names the nearest.
    """
    for name in given:
        if name not in kept and name not in ignored:
            raise UnknownNameError.of(f"option of {owner}", name, kept)
    return {name: value for name, value in given.items() if name in kept}


def with_whole_expand(options: Mapping[str, Any], d_model: int) -> dict[str, Any]:
    """The options with an `expand` that is not whole replaced by the width it makes.

    Raises:
        ConfigError: it is no number.
    """
    expand = options.get("expand", 2)
    if not isinstance(expand, int | float):
        raise ConfigError(f"config: expand is {expand!r}, expected a number")
    if expand == int(expand):
        return {**options, "expand": int(expand)}
    return {k: v for k, v in options.items() if k != "expand"} | {"d_inner": int(expand * d_model)}


def changed_options(model: MambaLM) -> dict[str, Any]:
    """The options of the model's mixers that are not our defaults.

    Raises:
        ConfigError: parts of the model were given sizes of their own.
    """
    if applied_sizes(model):
        raise ConfigError(
            f"{type(model).__name__}: its blocks have different sizes, which no published format "
            "can say; keep it with ssm_core.train.checkpoint.save_weights"
        )
    config = mixer_config(model.config)
    default = type(config)()
    values = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    return {k: v for k, v in values.items() if v != getattr(default, k)}


def refuse(owner: str, unknown: Collection[str]) -> None:
    """Raise `ConfigError` if there is something that a format cannot say."""
    if unknown:
        raise ConfigError(
            f"{owner}: its configuration has no {', '.join(unknown)}; keep this model with "
            "ssm_core.train.checkpoint.save_weights, or try the other format"
        )
