"""Multi-head self-attention as a baseline, on PyTorch's fused scaled_dot_product_attention.

It has no notion of order by itself: give the model position embeddings. Keys and values grow with
the sequence, so the state of the causal form is O(l) where that of an SSM is O(1).

Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ssm_core.errors import ConfigError
from ssm_core.layers.checks import positive_int, probability
from ssm_core.layers.protocol import SequenceLayer
from ssm_core.linear import Linear
from ssm_core.packing import pack, steps_of, unpack
from ssm_core.shapes import Activations, HeadCache, Offsets, StepMask


@dataclass(frozen=True)
class AttentionConfig:
    """Options of multi-head self-attention.

    Attributes:
        n_heads: h, number of heads; must divide the width of the model, unless headdim is given.
        causal: attend to the present and the past only.
        bias: biases in in_proj and out_proj.
        dropout: probability of dropping an attention weight in training.
        headdim: p, channels per head, for layers that lost heads; None means d / h.

    Raises:
        ConfigError: a value out of range.
    """

    n_heads: int = 4
    causal: bool = True
    bias: bool = True
    dropout: float = 0.0
    headdim: int | None = None

    def __post_init__(self) -> None:
        positive_int("AttentionConfig", "n_heads", self.n_heads)
        if self.headdim is not None:
            positive_int("AttentionConfig", "headdim (a number or None)", self.headdim)
        probability("AttentionConfig", "dropout", self.dropout)


class AttentionState(NamedTuple):
    """Keys and values of all steps so far."""

    keys: HeadCache
    """(b, h, l, p)"""
    values: HeadCache
    """(b, h, l, p)"""
    seen: StepMask
    """(b, l): False where a sequence of the batch is shorter than others and has no step."""


class Attention(SequenceLayer):
    """Multi-head self-attention, (b, l, d) -> (b, l, d), scale 1/sqrt(p); h p = d, but for layers
    that lost heads.

    Parameters: in_proj (3 h p, d; rows queries, keys, values), out_proj (d, h p).

    Cost: O(b l^2 h p + b l d h p) time; the state holds 2 h p numbers per step seen.
    """

    state_type = AttentionState

    def __init__(self, d_model: int, config: AttentionConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or AttentionConfig()
        self.d_model = positive_int("Attention", "d_model", d_model)
        self.causal = config.causal
        if config.headdim is None and d_model % config.n_heads:
            raise ConfigError(
                f"Attention: n_heads is {config.n_heads}, expected a divisor of d_model = {d_model}"
            )
        self.headdim = config.headdim or d_model // config.n_heads
        inner = config.n_heads * self.headdim
        self.in_proj = Linear(d_model, 3 * inner, bias=config.bias)
        self.out_proj = Linear(inner, d_model, bias=config.bias)

    def mix(
        self,
        x: Activations,
        state: AttentionState | None,
        cu_seqlens: Offsets | None,
        return_state: bool,
    ) -> tuple[Activations, AttentionState]:
        """Mix x (b, l, d) over its steps; see `SequenceLayer.forward`.

        Packed sequences are padded to the longest one.
        """
        if cu_seqlens is None:
            steps = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
            return self._attend(x, steps, state, all_seen=state is None)
        steps = steps_of(cu_seqlens, x.device)
        y, state = self._attend(unpack(x, steps), steps, state, all_seen=False)
        return pack(y, steps).x, state

    def _attend(
        self, x: Activations, steps: StepMask, state: AttentionState | None, all_seen: bool
    ) -> tuple[Activations, AttentionState]:
        """Attend from every step of x (b, l, d); `all_seen`: no step is padding or from before."""
        queries, keys, values = (self._split_heads(t) for t in self.in_proj(x).chunk(3, dim=-1))
        seen = steps
        if state is not None:
            keys = torch.cat([state.keys.to(keys.dtype), keys], dim=2)
            values = torch.cat([state.values.to(values.dtype), values], dim=2)
            seen = torch.cat([state.seen, steps], dim=1)
        heads = F.scaled_dot_product_attention(
            queries,
            keys,
            values,
            attn_mask=None if all_seen else attention_mask(steps.shape[1], seen, self.causal),
            dropout_p=self.config.dropout if self.training else 0.0,
            is_causal=self.causal and all_seen,
        )
        return self.out_proj(heads.transpose(1, 2).flatten(2)), AttentionState(keys, values, seen)

    def initial_state(self, batch: int) -> AttentionState:
        """Return the empty state for `batch` sequences."""
        self._require_causal("initial_state")
        heads, weight = self.config.n_heads, self.in_proj.weight
        empty = weight.new_zeros(batch, heads, 0, self.headdim)
        return AttentionState(empty, empty, weight.new_zeros(batch, 0, dtype=torch.bool))

    def _split_heads(self, x: Tensor) -> Tensor:
        """(b, l, h p) -> (b, h, l, p)"""
        return x.unflatten(2, (self.config.n_heads, -1)).transpose(1, 2)


def attention_mask(l_new: int, seen: StepMask, causal: bool) -> Tensor:
    """Return what the last `l_new` steps may look at, (b, 1, l_new, l), given all steps seen.

    Every step sees itself, padding too: a row that sees nothing would be NaN.
    """
    before = seen.shape[1] - l_new
    allowed = seen.unsqueeze(1).expand(-1, l_new, -1)
    if causal:
        allowed = allowed.tril(before)
    itself = seen.new_ones(l_new, seen.shape[1]).tril(before).triu(before)
    return (allowed | itself).unsqueeze(1)
