"""`MHA` of mamba_ssm: the attention layers of its hybrid models."""

from __future__ import annotations

import torch
from torch import Tensor

from ssm_core.compat.cache import InferenceParams
from ssm_core.compat.placement import convert, made_on
from ssm_core.errors import ConfigError
from ssm_text import rotary_attention
from ssm_text.rotary_attention import RotaryAttentionState
from ssm_text.rotary_attention_config import RotaryAttentionConfig


class MHA(rotary_attention.RotaryAttention):
    """Causal self-attention, (b, l, d) -> (b, l, d), to be called like the one of mamba_ssm.

    Its cache is a new, longer one after every call, in `InferenceParams`. `forward` has other
    arguments than that of a sequence layer, so it cannot stand where one is expected.
    """

    # The arguments and their order are the original's.
    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        num_heads_kv: int | None = None,
        head_dim: int | None = None,
        mlp_dim: int = 0,
        qkv_proj_bias: bool = True,
        out_proj_bias: bool = True,
        softmax_scale: float | None = None,
        causal: bool = False,
        layer_idx: int | None = None,
        d_conv: int = 0,
        rotary_emb_dim: int = 0,
        rotary_emb_base: float = 10000.0,
        rotary_emb_interleaved: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Make an attention layer; see `ssm_text.rotary_attention_config`.

        Raises:
            ConfigError: sizes that do not divide one another, or one of the options that no
                published model has: not causal, a gated MLP inside, another scale.
        """
        unsupported = {
            "causal=False": not causal,
            f"mlp_dim={mlp_dim}": mlp_dim != 0,
            f"softmax_scale={softmax_scale}": softmax_scale is not None,
        }
        for what, wanted in unsupported.items():
            if wanted:
                raise ConfigError(
                    f"MHA: {what} is not there, expected causal=True, mlp_dim=0 and "
                    "softmax_scale=None as in the published models"
                )
        config = RotaryAttentionConfig(
            n_heads=num_heads,
            n_heads_kv=num_heads_kv,
            headdim=head_dim,
            d_conv=d_conv,
            rotary_dim=rotary_emb_dim,
            rotary_base=rotary_emb_base,
            rotary_interleaved=rotary_emb_interleaved,
            qkv_bias=qkv_proj_bias,
            out_bias=out_proj_bias,
        )
        with made_on(device):
            super().__init__(embed_dim, config)
        convert(dtype, self)
        self.embed_dim, self.layer_idx, self.d_conv = embed_dim, layer_idx, d_conv
        self.rotary_emb_dim, self.softmax_scale, self.causal = rotary_emb_dim, None, True
        self.num_heads, self.num_heads_kv = num_heads, config.kv_heads
        self.head_dim, self.mlp_dim = self.headdim, 0

    def forward(  # type: ignore[override]
        self, x: Tensor, inference_params: InferenceParams | None = None
    ) -> Tensor:
        """Map (b, l, d) to (b, l, d).

        With `inference_params` the cache there is replaced by one with these steps; it is read if
        its `seqlen_offset` is above 0.

        Raises:
            ShapeError: x is not (b, l, d).
            ConfigError: a cache was asked of a layer without `layer_idx`.
        """
        self.check_call(x)
        if inference_params is None:
            return self.mix(x, None, None, return_state=False)[0]
        if self.layer_idx is None:
            raise ConfigError(
                "MHA: layer_idx is None, expected a number of its own to keep the cache under; "
                "pass layer_idx=0, 1, .. to the constructors"
            )
        memory = inference_params.key_value_memory_dict
        state = memory.get(self.layer_idx) if inference_params.seqlen_offset > 0 else None
        y, memory[self.layer_idx] = self.mix(x, state, None, return_state=True)
        return y

    def allocate_inference_cache(
        self, batch_size: int, max_seqlen: int, dtype: torch.dtype | None = None
    ) -> RotaryAttentionState:
        """Return the empty cache; it grows, so that `max_seqlen` reserves nothing.

        Args:
            dtype: of keys and values; None: the weights'.
        """
        state = self.initial_state(batch_size)
        keys, values = (part.to(dtype or part.dtype) for part in (state.keys, state.values))
        return state._replace(keys=keys, values=values)
