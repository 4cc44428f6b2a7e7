"""The published Mamba and Mamba-2 language models by name, and the hybrid with attention.

Sources: Gu & Dao 2023, arXiv:2312.00752, Table 12 and section E.2; Dao & Gu 2024,
arXiv:2405.21060, Table 9; the configuration files of the published models.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from ssm_core.errors import UnknownNameError
from ssm_text.mamba_lm_config import MambaLMConfig

#: tokens of the GPT-NeoX tokenizer, which all of them use
VOCAB_SIZE = 50277


class _Size(NamedTuple):
    d_model: int
    n_layers: int


_MAMBA = {
    "130m": _Size(768, 24),
    "370m": _Size(1024, 48),
    "790m": _Size(1536, 48),
    "1.4b": _Size(2048, 48),
    "2.8b": _Size(2560, 64),
}
_MAMBA2 = {
    "130m": _Size(768, 24),
    "370m": _Size(1024, 48),
    "780m": _Size(1536, 48),
    "1.3b": _Size(2048, 48),
    "2.7b": _Size(2560, 64),
}

PRESETS: dict[str, MambaLMConfig] = {
    f"mamba-{name}": MambaLMConfig(*size, vocab_size=VOCAB_SIZE) for name, size in _MAMBA.items()
} | {
    f"mamba2-{name}": MambaLMConfig(
        *size, vocab_size=VOCAB_SIZE, mixer="mamba2", pad_vocab_size_multiple=16
    )
    for name, size in _MAMBA2.items()
}

PRESETS["mamba2attn-2.7b"] = replace(
    PRESETS["mamba2-2.7b"],
    attention_layers=(9, 18, 27, 36, 45, 56),
    attention_options={
        **{"n_heads": 30, "headdim": 128, "d_conv": 4, "rotary_dim": 64},
        **{"qkv_bias": False, "out_bias": False},
    },
)


def preset(name: str) -> MambaLMConfig:
    """The options of a published model, e.g. "mamba-130m"; see `PRESETS`.

    Raises:
        UnknownNameError: no such preset; names the nearest.
    """
    if name not in PRESETS:
        raise UnknownNameError.of("language model", name, PRESETS)
    return PRESETS[name]
