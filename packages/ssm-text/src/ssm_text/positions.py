"""Learned position embeddings that know where every text of a batch stands.

Attention has no notion of order by itself. Source: Radford et al. 2019, GPT-2 (as in nanoGPT).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssm_core.layers.protocol import StateError
from ssm_text.errors import TokenError


class PositionState(NamedTuple):
    """How much of each text has been read."""

    seen: Tensor
    """(b,) int64: tokens, without padding."""


class Positions(nn.Module):
    """A vector for each of the first `most` places of a text, N(0, 0.02^2) at the beginning.

    Parameter: weight (most, d).
    """

    def __init__(self, most: int, d_model: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(most, d_model))
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, ids: Tensor, state: PositionState | None, mask: Tensor | None) -> Tensor:
        """Vectors, (b, l, d) or (l, d) for all texts alike, to add to the embeddings of ids (b, l).

        Raises:
            TokenError: a text longer than the positions. Where the texts' lengths are on an
                accelerator, looking would wait for it: the vectors beyond are NaN instead.
        """
        length, most = ids.shape[1], len(self.weight)
        if state is None and mask is None:
            if length > most:
                raise self._too_long(length)
            return self.weight[:length]
        count = torch.arange(1, length + 1, device=ids.device) if mask is None else mask.cumsum(1)
        places = count - 1 if state is None else state.seen.unsqueeze(1) + count - 1
        if places.device.type == "cpu" and not torch.compiler.is_compiling():
            if places.numel() and int(places.max()) >= most:
                raise self._too_long(int(places.max()) + 1)
            return F.embedding(places.clamp(min=0), self.weight)  # -1: padding before a text
        vectors = F.embedding(places.clamp(0, most - 1), self.weight)
        return vectors.masked_fill((places >= most).unsqueeze(-1), float("nan"))

    def advanced(
        self, ids: Tensor, state: PositionState | None, mask: Tensor | None
    ) -> PositionState:
        """The state after ids (b, l)."""
        seen = self.initial_state(ids.shape[0]).seen if state is None else state.seen
        return PositionState(seen + (ids.shape[1] if mask is None else mask.sum(1)))

    def initial_state(self, batch: int) -> PositionState:
        """The state at the beginning of `batch` texts."""
        return PositionState(torch.zeros(batch, dtype=torch.int64, device=self.weight.device))

    def _too_long(self, length: int) -> TokenError:
        return TokenError(
            f"Positions: a text of {length} tokens, expected at most {len(self.weight)}, as many "
            "as there are position embeddings; give less text, or train with more model.positions"
        )

    def extra_repr(self) -> str:
        return ", ".join(str(size) for size in self.weight.shape)


def split_state(state: Any, batch: int) -> tuple[PositionState, tuple[Any, ...]]:
    """The position and the rest of a model's state for `batch` texts.

    Raises:
        StateError: there is no position in it, or one of another batch size.
    """
    if not isinstance(state, tuple) or not state or not isinstance(state[0], PositionState):
        raise StateError(
            "state has no PositionState as its first part, expected the state of a model with "
            "positions; start from initial_state(batch)"
        )
    if state[0].seen.shape != (batch,):
        raise StateError(
            f"state has positions of shape {tuple(state[0].seen.shape)}, expected ({batch},), "
            "one for each text of the batch"
        )
    return state[0], state[1:]
