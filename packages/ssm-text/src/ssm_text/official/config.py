"""The configuration files of published language models, read as ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from ssm_core.errors import ConfigError
from ssm_text.mamba_lm_config import MambaLMConfig
from ssm_text.official import huggingface_config, original_config

Format = Literal["official", "huggingface"]


def read_config(config: object) -> MambaLMConfig:
    """Read the content of a config.json of state-spaces/mamba or of transformers.

    Raises:
        ConfigError: of neither, or of a model that differs from ours.
    """
    if not isinstance(config, Mapping):
        hint = "; pass config.to_dict()" if hasattr(config, "to_dict") else ""
        raise ConfigError(
            f"config is a {type(config).__name__}, expected the content of a config.json, "
            f"a mapping{hint}"
        )
    config = {name: _number(value) for name, value in config.items()}
    if "hidden_size" in config or "model_type" in config:
        return huggingface_config.read(config)
    if "d_model" in config:
        return original_config.read(config)
    raise ConfigError(
        f"config has the keys {', '.join(sorted(map(str, config))[:10]) or 'none'}, expected those "
        "of state-spaces/mamba (d_model, n_layer, ..) or of transformers (hidden_size, ..)"
    )


def _number(value: Any) -> Any:
    """A value whose infinite numbers may be written as {"__float__": "Infinity"}."""
    if isinstance(value, Mapping):
        if set(value) == {"__float__"}:
            try:
                return float(value["__float__"])
            except (TypeError, ValueError):
                raise ConfigError(
                    f"config has {value['__float__']!r}, expected a number such as 'Infinity'"
                ) from None
        return {name: _number(part) for name, part in value.items()}
    return [_number(part) for part in value] if isinstance(value, list | tuple) else value
