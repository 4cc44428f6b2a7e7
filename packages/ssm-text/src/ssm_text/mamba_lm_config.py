"""Options of a Mamba language model."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from ssm_core.errors import ConfigError
from ssm_core.layers.checks import int_from, one_of, positive_int
from ssm_core.norm import NORM_NAMES, NormName

MixerName = Literal["mamba", "mamba2", "mamba3"]
MIXER_NAMES: tuple[str, ...] = get_args(MixerName)

#: the hidden channels of the gated MLP are rounded up to a multiple of this
MLP_MULTIPLE = 128


@dataclass(frozen=True)
class MambaLMConfig:
    """Options of a Mamba language model.

    Args:
        d_model: d, channels of the residual stream.
        n_layers: number of blocks.
        vocab_size: number of tokens; None: that of the data it is trained on.
        mixer: "mamba", "mamba2" or "mamba3".
        mixer_options: options of that mixer, e.g. {d_state: 16}.
        mlp_hidden: hidden channels of each block's gated MLP, rounded up to a multiple of 128; 0
            means no MLP.
        norm: "rms" or "layer".
        norm_eps: added to the mean square in the norms between the mixers.
        residual_in_fp32: keep the residual stream in float32 where the weights are in half
            precision.
        tie_embeddings: the head uses the embedding's matrix.
        pad_vocab_size_multiple: embedding and head have so many rows more that their number is a
            multiple of this.
        attention_layers: places, from 0, of blocks that mix by attention.
        attention_options: options of those, e.g. {n_heads: 8}; see
            `ssm_text.rotary_attention_config`.

    Raises:
        ConfigError: a value out of range.
    """

    d_model: int = 768
    n_layers: int = 24
    vocab_size: int | None = None
    mixer: MixerName = "mamba"
    mixer_options: dict[str, Any] = field(default_factory=dict)
    mlp_hidden: int = 0
    norm: NormName = "rms"
    norm_eps: float = 1e-5
    residual_in_fp32: bool = True
    tie_embeddings: bool = True
    pad_vocab_size_multiple: int = 8
    attention_layers: tuple[int, ...] = ()
    attention_options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("d_model", "n_layers", "pad_vocab_size_multiple"):
            positive_int("model", name, getattr(self, name))
        if self.vocab_size is not None:
            positive_int("model", "vocab_size", self.vocab_size)
        int_from(0, "model", "mlp_hidden", self.mlp_hidden)
        one_of("model", "mixer", self.mixer, MIXER_NAMES)
        one_of("model", "norm", self.norm, NORM_NAMES)
        if not 0 <= self.norm_eps < math.inf:
            raise ConfigError(f"model: norm_eps is {self.norm_eps!r}, expected a number from 0")
        outside = [i for i in self.attention_layers if not 0 <= i < self.n_layers]
        if outside:
            raise ConfigError(
                f"model: attention_layers has {outside[0]}, expected 0 to {self.n_layers - 1}"
            )

    @property
    def mlp_width(self) -> int:
        """Hidden channels of the MLP as it is built."""
        return _rounded_up(self.mlp_hidden, MLP_MULTIPLE)

    def padded(self, vocab_size: int) -> int:
        """Rows of the embedding and of the head for a vocabulary of this size."""
        return _rounded_up(vocab_size, self.pad_vocab_size_multiple)


def _rounded_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
