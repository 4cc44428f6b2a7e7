"""Multi-head self-attention as a baseline, on PyTorch's fused scaled_dot_product_attention.

It has no notion of order by itself: give the model position embeddings. Keys and values grow with
the sequence, so the state of the causal form is O(l) where that of an SSM is O(1).

Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssm_core.errors import ConfigError
from ssm_core.layers.checks import positive_int, probability
from ssm_core.layers.protocol import SequenceLayer
from ssm_core.shapes import Activations, HeadCache


@dataclass(frozen=True)
class AttentionConfig:
    """Options of multi-head self-attention.

    Attributes:
        n_heads: number of heads; must divide the width of the model.
        causal: attend to the present and the past only.
        bias: biases in in_proj and out_proj.
        dropout: probability of dropping an attention weight in training.

    Raises:
        ConfigError: a value out of range.
    """

    n_heads: int = 4
    causal: bool = True
    bias: bool = True
    dropout: float = 0.0

    def __post_init__(self) -> None:
        positive_int("AttentionConfig", "n_heads", self.n_heads)
        probability("AttentionConfig", "dropout", self.dropout)


class AttentionState(NamedTuple):
    """Keys and values of all steps so far."""

    keys: HeadCache
    """(b, h, l, p)"""
    values: HeadCache
    """(b, h, l, p)"""


class Attention(SequenceLayer):
    """Multi-head self-attention, (b, l, d) -> (b, l, d), scale 1/sqrt(p) with p = d / h.

    Parameters: in_proj (3d, d; rows queries, keys, values), out_proj (d, d).

    Cost: O(b l^2 d + b l d^2) time; the state holds 2 d numbers per step seen.
    """

    state_type = AttentionState

    def __init__(self, d_model: int, config: AttentionConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or AttentionConfig()
        self.d_model = positive_int("Attention", "d_model", d_model)
        self.causal = config.causal
        if d_model % config.n_heads:
            raise ConfigError(
                f"Attention: n_heads is {config.n_heads}, expected a divisor of d_model = {d_model}"
            )
        self.in_proj = nn.Linear(d_model, 3 * d_model, bias=config.bias)
        self.out_proj = nn.Linear(d_model, d_model, bias=config.bias)

    def forward(
        self, x: Activations, state: AttentionState | None = None, return_state: bool = False
    ) -> Activations | tuple[Activations, AttentionState]:
        """Mix x (b, l, d) over its steps; see `SequenceLayer.forward`."""
        self.check_call(x, state, return_state)
        queries, keys, values = (self._split_heads(t) for t in self.in_proj(x).chunk(3, dim=-1))
        if state is not None:
            keys = torch.cat([state.keys.to(keys.dtype), keys], dim=2)
            values = torch.cat([state.values.to(values.dtype), values], dim=2)
        mask = self._mask(queries.shape[2], keys.shape[2], x.device)
        heads = F.scaled_dot_product_attention(
            queries,
            keys,
            values,
            attn_mask=mask,
            dropout_p=self.config.dropout if self.training else 0.0,
            is_causal=self.causal and mask is None and queries.shape[2] > 1,
        )
        y = self.out_proj(heads.transpose(1, 2).flatten(2))
        return (y, AttentionState(keys, values)) if return_state else y

    def initial_state(self, batch: int) -> AttentionState:
        """Return the empty state for `batch` sequences."""
        self._require_causal("initial_state")
        heads = self.config.n_heads
        empty = self.in_proj.weight.new_zeros(batch, heads, 0, self.d_model // heads)
        return AttentionState(empty, empty)

    def _split_heads(self, x: Tensor) -> Tensor:
        """(b, l, d) -> (b, h, l, p)"""
        return x.unflatten(2, (self.config.n_heads, -1)).transpose(1, 2)

    def _mask(self, l_new: int, l_all: int, device: torch.device) -> Tensor | None:
        """Return the mask (l_new, l_all) of a chunk with a past, None where no mask is needed.

        `is_causal` lines up the first query with the first key, so it only serves without a past;
        a single query is the latest step and sees everything.
        """
        if not self.causal or l_new == l_all or l_new <= 1:
            return None
        return torch.ones(l_new, l_all, dtype=torch.bool, device=device).tril(l_all - l_new)
