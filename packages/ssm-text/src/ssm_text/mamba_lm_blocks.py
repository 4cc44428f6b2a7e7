"""The blocks of a Mamba language model, under the names of the official checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ssm_core import Mamba, Mamba2, Mamba2Config, Mamba3, Mamba3Config, MambaConfig
from ssm_core.block import Block
from ssm_core.config import make_config
from ssm_core.errors import ConfigError
from ssm_core.layers.checks import positive_int
from ssm_core.layers.protocol import SequenceLayer
from ssm_core.linear import Linear
from ssm_core.norm import make_norm
from ssm_core.shapes import Activations
from ssm_core.tower import BlockStack
from ssm_text.mamba_lm_config import MambaLMConfig
from ssm_text.rotary_attention import RotaryAttention
from ssm_text.rotary_attention_config import RotaryAttentionConfig

MIXERS: dict[str, tuple[type, Callable[[int, Any], SequenceLayer]]] = {
    "mamba": (MambaConfig, Mamba),
    "mamba2": (Mamba2Config, Mamba2),
    "mamba3": (Mamba3Config, Mamba3),
}


class GatedMLP(nn.Module):
    """fc2(u silu(g)) with u, g the halves of fc1(x), on every step: (b, l, d) -> (b, l, d).

    Source: Shazeer 2020, arXiv:2002.05202 (SwiGLU).
    """

    def __init__(self, d_model: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = Linear(d_model, 2 * hidden, bias=False)
        self.fc2 = Linear(hidden, d_model, bias=False)

    def resized(self, sizes: Mapping[str, Any]) -> GatedMLP:
        """Return a new, untrained MLP with `sizes` = {"hidden": hidden channels}.

        Raises:
            ConfigError: other sizes.
        """
        if set(sizes) != {"hidden"}:
            raise ConfigError(f"GatedMLP: sizes are {dict(sizes)}, expected 'hidden' alone")
        return GatedMLP(self.fc2.out_features, positive_int("GatedMLP", "hidden", sizes["hidden"]))

    def forward(self, x: Activations) -> Activations:
        u, gate = self.fc1(x).chunk(2, dim=-1)
        y: Activations = self.fc2(u * F.silu(gate))
        return y


class MambaLMBlock(Block):
    """r = x + mixer(norm(x)), then r + mlp(norm2(r)) if there is a gated MLP."""

    def __init__(self, mixer: SequenceLayer, config: MambaLMConfig) -> None:
        super().__init__(config.d_model, mixer, norm=config.norm)
        self.residual_in_fp32 = config.residual_in_fp32
        self.norm = make_norm(config.norm, config.d_model, config.norm_eps)
        if config.mlp_hidden:
            self.norm2 = make_norm(config.norm, config.d_model, config.norm_eps)
            self.mlp = GatedMLP(config.d_model, config.mlp_width)


class Backbone(BlockStack):
    """Embedding, blocks and final norm; as a layer it maps what is embedded, (b, l, d)."""

    def __init__(self, rows: int, config: MambaLMConfig) -> None:
        """Build it with a vocabulary of `rows` tokens, the padding included."""
        blocks = (MambaLMBlock(mixer, config) for mixer in _mixers(config))
        norm_f = make_norm(config.norm, config.d_model, config.norm_eps)
        super().__init__(config.d_model, blocks, norm_f)
        # not nn.Embedding(..), which draws values of its own first
        weight = torch.empty(rows, config.d_model)
        if not weight.is_meta:  # to draw nothing there, torch imports for seconds
            nn.init.normal_(weight, std=0.02)
        self.embedding = nn.Embedding.from_pretrained(weight, freeze=False)


def mixer_config(config: MambaLMConfig) -> Any:
    """The configuration of the mixers, one of those in `MIXERS`.

    Raises:
        ConfigError: options that the mixer does not have or refuses.
    """
    options, name = config.mixer_options, config.mixer
    return make_config(MIXERS[name][0], options, f"model.mixer_options ({name})")


def attention_config(config: MambaLMConfig) -> RotaryAttentionConfig:
    """The configuration of the attention layers.

    Raises:
        ConfigError: options that they do not have or refuse.
    """
    return make_config(RotaryAttentionConfig, config.attention_options, "model.attention_options")


def _mixers(config: MambaLMConfig) -> Iterator[SequenceLayer]:
    options, layer = mixer_config(config), MIXERS[config.mixer][1]
    attention = attention_config(config) if config.attention_layers else None
    for i in range(config.n_layers):
        if attention is not None and i in config.attention_layers:
            yield RotaryAttention(config.d_model, attention)
        else:
            yield layer(config.d_model, options)
