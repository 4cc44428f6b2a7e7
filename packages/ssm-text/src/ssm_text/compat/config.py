"""`MambaConfig` of mamba_ssm: the content of a model's config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ssm_core.errors import ConfigError


@dataclass
class MambaConfig:
    """Sizes and options of a Mamba language model, under the original's names.

    Attributes:
        d_intermediate: hidden channels of each block's gated MLP; 0 means none.
        ssm_cfg: further arguments of the mixers, and "layer": "Mamba1" or "Mamba2".
        attn_layer_idx, attn_cfg: places of blocks that mix by attention, and its arguments.
        vocab_size: rounded up to a multiple of `pad_vocab_size_multiple` in the model.

    New code uses `ssm_text.MambaLMConfig`.
    """

    d_model: int = 2560
    d_intermediate: int = 0
    n_layer: int = 64
    vocab_size: int = 50277
    ssm_cfg: dict[str, Any] = field(default_factory=dict)
    attn_layer_idx: list[int] = field(default_factory=list)
    attn_cfg: dict[str, Any] = field(default_factory=dict)
    rms_norm: bool = True
    residual_in_fp32: bool = True
    fused_add_norm: bool = True
    pad_vocab_size_multiple: int = 8
    tie_embeddings: bool = True


def config_from(content: Mapping[str, Any]) -> MambaConfig:
    """Read the content of a config.json; keys that are not known are left out.

    Raises:
        ConfigError: it is that of another library.
    """
    if "d_model" not in content:
        raise ConfigError(
            "config.json has no d_model, expected that of state-spaces/mamba; a model of "
            "transformers is read by ssm_text.MambaLM.from_pretrained"
        )
    known = {own.name for own in fields(MambaConfig)}
    return MambaConfig(**{name: value for name, value in content.items() if name in known})
