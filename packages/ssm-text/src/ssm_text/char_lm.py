"""A character language model: embedding, a tower of any causal mixer, and a linear head.

Initial values follow Gu & Dao 2023, arXiv:2312.00752 (embedding N(0, 0.02^2); the tower rescales
its residual branches) or, for a Transformer, Radford et al. 2019, GPT-2. Tied weights: Press & Wolf
2017, arXiv:1608.05859.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ssm_core import Attention, Tower, TowerConfig, build_mixer
from ssm_core.errors import ConfigError
from ssm_core.init import rescale_residual_branches
from ssm_core.linear import Linear
from ssm_core.norm import NormName
from ssm_text.causal_lm import CausalLM, State
from ssm_text.positions import Positions, split_state


@dataclass(frozen=True)
class CharLMConfig:
    """Options of a character language model.

    Args:
        d_model: width, channels between layers.
        n_layers: number of blocks.
        mixer: a causal sequence layer, see `ssm-train list mixers`.
        mixer_options: options of that mixer, e.g. {d_state: 16}.
        mlp_hidden: hidden channels of each block's MLP; 0 means no MLP.
        dropout: probability of dropping a number of the embedding or of a block's output in
            training.
        tie_embeddings: the head uses the embedding's matrix.
        positions: the most tokens of a text, each place with an embedding of its own; 0: none, and
            texts of any length. Attention needs them to know an order, the other mixers do not.
        norm: "rms" or "layer".
        bias: biases in norms and MLPs; mixers have options of their own.
        init: "layers": each layer's own initial values; "gpt", for attention: all matrices
            N(0, 0.02^2), the last ones of the residual branches divided by sqrt(2 n_layers).
    """

    d_model: int = 128
    n_layers: int = 2
    mixer: str = "mamba"
    mixer_options: dict[str, Any] = field(default_factory=dict)
    mlp_hidden: int = 0
    dropout: float = 0.0
    tie_embeddings: bool = True
    positions: int = 0
    norm: NormName = "rms"
    bias: bool = True
    init: Literal["layers", "gpt"] = "layers"

    def __post_init__(self) -> None:
        for key, least in (("d_model", 1), ("n_layers", 1), ("mlp_hidden", 0), ("positions", 0)):
            if getattr(self, key) < least:
                raise ConfigError(f"model.{key} is {getattr(self, key)}, expected {least} or more")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"model.dropout is {self.dropout}, expected a number in [0, 1)")


class CharLM(CausalLM):
    """Next-character logits: ids (b, l) int64 -> (b, l, V), at step t of the character at t + 1.

    Whole texts, pieces and single steps agree; see `CausalLM`. The state is the tower's, a tuple
    with one NamedTuple of tensors per layer; with positions, the `PositionState` comes first.

    Args:
        vocab_size: V.
        config: sizes and mixer.
    Raises:
        ConfigError: the mixer is not causal, or does not go with `init`; names it.

    Cost: that of the tower, plus O(b l d V) for the head.
    """

    def __init__(self, vocab_size: int, config: CharLMConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or CharLMConfig()
        if vocab_size < 1:
            raise ConfigError(f"vocab_size is {vocab_size}, expected 1 or more")
        self.vocab_size = vocab_size
        self.embedding = nn.Embedding(vocab_size, config.d_model)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.context = config.positions or None
        self.positions = Positions(self.context, config.d_model) if self.context else None
        self.drop = nn.Dropout(config.dropout)
        self.tower = Tower(
            lambda: build_mixer(config.mixer, config.d_model, config.mixer_options),
            TowerConfig(
                d_model=config.d_model,
                n_layers=config.n_layers,
                mlp_hidden=config.mlp_hidden,
                dropout=config.dropout,
                norm=config.norm,
                bias=config.bias,
            ),
        )
        if not self.tower.causal:
            raise ConfigError(
                f"model.mixer is {config.mixer!r}, which reads the characters to predict; "
                "expected a causal one, e.g. mamba"
            )
        if config.init == "gpt":
            _init_as_gpt(self.tower, config)
        self.head = Linear(config.d_model, vocab_size, bias=False)
        if config.tie_embeddings:
            self.head.weight = self.embedding.weight

    def hidden(
        self, ids: Tensor, state: State | None, return_state: bool, mask: Tensor | None
    ) -> tuple[Tensor, State | None]:
        """What the head reads, (b, l, d), and the state; see `CausalLM.hidden`."""
        x, place = self.embedding(ids), None
        if self.positions is not None:
            if state is not None:
                place, state = split_state(state, ids.shape[0])
            x = x + self.positions(ids, place, mask)
        x = self.drop(x)
        if not return_state:
            return self.tower(x, state=state, mask=mask), None
        y, state = self.tower(x, state=state, return_state=True, mask=mask)
        if self.positions is not None:
            state = (self.positions.advanced(ids, place, mask), *state)
        return y, state

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (.., V) of `hidden` (.., d)."""
        logits: Tensor = self.head(hidden)
        return logits

    def initial_state(self, batch: int) -> State:
        """The state at the beginning of `batch` texts."""
        state = self.tower.initial_state(batch)
        return state if self.positions is None else (self.positions.initial_state(batch), *state)


@torch.no_grad()
def _init_as_gpt(tower: Tower, config: CharLMConfig) -> None:
    if not any(isinstance(part, Attention) for part in tower.modules()):
        raise ConfigError(
            f"model.init is 'gpt' with model.mixer {config.mixer!r}, whose layers have initial "
            "values of their own; expected 'layers', or the mixer attention"
        )
    for part in tower.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=0.02)
    rescale_residual_branches(tower, 2 * config.n_layers)
