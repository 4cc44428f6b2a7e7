"""A language model of ours in the formats of the original repositories."""

from __future__ import annotations

from typing import Any

from ssm_core.errors import ConfigError
from ssm_core.official.tensors import Tensors
from ssm_text.mamba_lm import MambaLM
from ssm_text.official import huggingface_config, original_config
from ssm_text.official.config import Format
from ssm_text.official.names import HEAD, in_huggingface_names


def to_official(model: MambaLM, format: Format = "official") -> tuple[Tensors, dict[str, Any]]:
    """The tensors of a model and its configuration, as `from_official` reads them.

    Args:
        format: "official" (state-spaces/mamba) or "huggingface" (transformers).
    Returns:
        the tensors, which share the memory of the parameters, a tied head left out; and the
        content of a config.json.
    Raises:
        ConfigError: another format, or a model that it cannot express.
    """
    if format not in ("official", "huggingface"):
        raise ConfigError(f"format is {format!r}, expected 'official' or 'huggingface'")
    tensors = {name: value.detach() for name, value in model.state_dict().items()}
    if model.config.tie_embeddings:
        del tensors[HEAD]
    if format == "official":
        return tensors, original_config.write(model)
    return in_huggingface_names(tensors), huggingface_config.write(model)
