"""The attention layers of hybrid Mamba models: a convolution, rotary positions, a cache of keys.

Parameter names and shapes are those of the official checkpoints (`MHA` of state-spaces/mamba).

Sources: Dao & Gu 2024, arXiv:2405.21060, section 9.2.3; Su et al. 2021, arXiv:2104.09864 (rotary
positions); Ainslie et al. 2023, arXiv:2305.13245 (fewer heads for keys and values).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssm_core.layers.attention import attention_mask
from ssm_core.layers.checks import positive_int
from ssm_core.layers.protocol import SequenceLayer
from ssm_core.linear import Linear
from ssm_core.norm import at_least_float32
from ssm_core.packing import pack, steps_of, unpack
from ssm_core.shapes import Activations, ConvState, HeadCache, Offsets, StepMask
from ssm_kernels import causal_conv1d
from ssm_text.rotary_attention_config import RotaryAttentionConfig


class RotaryAttentionState(NamedTuple):
    """Keys and values of all steps so far, and the last inputs of the convolution."""

    conv: ConvState
    """(b, (h + 2 h_kv) p, k - 1), or (b, 0, 0) without a convolution"""
    keys: HeadCache
    """(b, h_kv, l, p), turned by their positions"""
    values: HeadCache
    """(b, h_kv, l, p)"""
    seen: StepMask
    """(b, l): False where a sequence of the batch is shorter than others and has no step."""


class RotaryAttention(SequenceLayer):
    """Causal multi-head self-attention, (b, l, d) -> (b, l, d), scale 1/sqrt(p).

    Parameters: in_proj ((h + 2 h_kv) p, d; rows queries, keys, values), conv1d of the same width
    if there is one, out_proj (d, h p).

    Cost: O(b l^2 h p + b l d h p) time; the state holds 2 h_kv p numbers per step seen.
    """

    state_type = RotaryAttentionState

    def __init__(self, d_model: int, config: RotaryAttentionConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or RotaryAttentionConfig()
        self.d_model = positive_int("RotaryAttention", "d_model", d_model)
        self.headdim = config.channels(d_model)
        inner = (config.n_heads + 2 * config.kv_heads) * self.headdim
        self.in_proj = Linear(d_model, inner, bias=config.qkv_bias)
        # Only the parameters are used, for the names and the shapes of the checkpoints.
        self.conv1d = (
            nn.Conv1d(inner, inner, config.d_conv, groups=inner) if config.d_conv else None
        )
        self.out_proj = Linear(config.n_heads * self.headdim, d_model, bias=config.out_bias)

    def mix(
        self,
        x: Activations,
        state: RotaryAttentionState | None,
        cu_seqlens: Offsets | None,
        return_state: bool,
    ) -> tuple[Activations, RotaryAttentionState]:
        """Mix x (b, l, d) over its steps; see `SequenceLayer.forward`.

        Packed sequences are padded to the longest one.
        """
        if state is None:
            state = self.initial_state(x.shape[0] if cu_seqlens is None else len(cu_seqlens) - 1)
        qkv, conv = self._convolved(self.in_proj(x), state.conv, cu_seqlens)
        state = state._replace(conv=conv)
        if cu_seqlens is None:
            steps = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
            y, state = self._attend(qkv, steps, state, all_seen=bool(state.seen.shape[1] == 0))
        else:
            steps = steps_of(cu_seqlens, x.device)
            y, state = self._attend(unpack(qkv, steps), steps, state, all_seen=False)
            y = pack(y, steps).x
        return self.out_proj(y), state

    def initial_state(self, batch: int) -> RotaryAttentionState:
        """Return the empty state for `batch` sequences."""
        weight = self.in_proj.weight
        sizes = (weight.shape[0], self.config.d_conv - 1) if self.conv1d is not None else (0, 0)
        empty = weight.new_zeros(batch, self.config.kv_heads, 0, self.headdim)
        conv = at_least_float32(weight.new_zeros(batch, *sizes))
        return RotaryAttentionState(
            conv, empty, empty, weight.new_zeros(batch, 0, dtype=torch.bool)
        )

    def _convolved(
        self, qkv: Tensor, state: ConvState, cu_seqlens: Offsets | None
    ) -> tuple[Tensor, ConvState]:
        if self.conv1d is None:
            return qkv, state
        y, state = causal_conv1d(
            qkv,
            self.conv1d.weight.squeeze(1),  # (E, 1, k) -> (E, k)
            self.conv1d.bias,
            activation=None,
            initial_state=state,
            return_final_state=True,
            cu_seqlens=cu_seqlens,
        )
        return y, state

    def _attend(
        self, qkv: Tensor, steps: StepMask, state: RotaryAttentionState, all_seen: bool
    ) -> tuple[Tensor, RotaryAttentionState]:
        """Attend from every step of qkv (b, l, (h + 2 h_kv) p): (b, l, h p), and the new cache.

        `all_seen`: no step is padding or from before.
        """
        heads, kv_heads = self.config.n_heads, self.config.kv_heads
        parts = qkv.unflatten(2, (-1, self.headdim)).transpose(1, 2)  # (b, h + 2 h_kv, l, p)
        queries, keys, values = parts.split_with_sizes([heads, kv_heads, kv_heads], dim=1)
        first = state.seen.sum(dim=1, keepdim=True)
        positions = first + torch.arange(steps.shape[1], device=steps.device)
        queries, keys = (self._turned(part, positions) for part in (queries, keys))
        keys = torch.cat([state.keys.to(keys.dtype), keys], dim=2)
        values = torch.cat([state.values.to(values.dtype), values], dim=2)
        seen = torch.cat([state.seen, steps], dim=1)
        y = F.scaled_dot_product_attention(
            queries,
            keys.repeat_interleave(heads // kv_heads, dim=1),
            values.repeat_interleave(heads // kv_heads, dim=1),
            attn_mask=None if all_seen else attention_mask(steps.shape[1], seen, causal=True),
            is_causal=all_seen,
        )
        state = RotaryAttentionState(state.conv, keys, values, seen)
        return y.transpose(1, 2).flatten(2), state

    def _turned(self, x: Tensor, positions: Tensor) -> Tensor:
        """Turn pairs of channels of x (b, h, l, p) by angles that grow with `positions` (b, l)."""
        pairs = self.config.rotary_dim // 2
        if not pairs:
            return x
        turning, rest = x.split_with_sizes([2 * pairs, x.shape[3] - 2 * pairs], dim=3)
        turning = at_least_float32(turning)
        # in float64: a far position times a fast pair would lose the digits of the angle
        exponents = torch.arange(pairs, device=x.device, dtype=torch.float64) / pairs
        angles = positions.unsqueeze(-1) * self.config.rotary_base**-exponents
        angles = angles.remainder(2 * math.pi).to(turning.dtype).unsqueeze(1)  # (b, 1, l, pairs)
        cos, sin = angles.cos(), angles.sin()
        if self.config.rotary_interleaved:
            one, two = turning[..., ::2], turning[..., 1::2]
            turned = torch.stack([one * cos - two * sin, one * sin + two * cos], dim=-1).flatten(3)
        else:
            one, two = turning.chunk(2, dim=3)
            turned = torch.cat([one * cos - two * sin, one * sin + two * cos], dim=3)
        return torch.cat([turned.to(x.dtype), rest], dim=3)
