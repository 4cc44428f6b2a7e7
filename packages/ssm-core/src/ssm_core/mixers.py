"""Sequence layers by name, from ssm-core or any plugin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssm_core.config import make_config
from ssm_core.layers.protocol import SequenceLayer
from ssm_core.plugins import plugin_host


def build_mixer(name: str, d_model: int, options: Mapping[str, Any] | None = None) -> SequenceLayer:
    """Build a registered sequence layer by name.

    Args:
        name: "mamba", "bimamba", "rnn", "attention" or a plugin's mixer (`ssm-train list mixers`).
        d_model: width of the input and the output.
        options: fields of that mixer's configuration.
    Raises:
        UnknownNameError: no such mixer, or an option that it does not have.
        ConfigError: an option of the wrong type, or one that the mixer refuses.
    """
    spec = plugin_host().get("mixers", name)
    layer: SequenceLayer = spec.build(
        d_model, make_config(spec.config, options or {}, f"mixer_options ({name})")
    )
    return layer
