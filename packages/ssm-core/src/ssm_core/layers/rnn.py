"""The vanilla (Elman) RNN as a baseline: `torch.nn.RNN` with the protocol of a sequence layer.

Source: Elman 1990, "Finding structure in time".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import nn

from ssm_core.errors import ConfigError
from ssm_core.layers.checks import one_of, positive_int
from ssm_core.layers.protocol import SequenceLayer
from ssm_core.linear import Linear
from ssm_core.packing import pack, steps_of, unpack
from ssm_core.shapes import Activations, HiddenState, Offsets

Nonlinearity = Literal["tanh", "relu"]


@dataclass(frozen=True)
class RNNConfig:
    """Options of a vanilla RNN.

    Attributes:
        hidden: hidden units; None means as many as the model has channels.
        nonlinearity: "tanh" or "relu".
        project: map the hidden units to the output by `out_proj`; None means where there are not as
            many as the model has channels.

    Raises:
        ConfigError: a value out of range.
    """

    hidden: int | None = None
    nonlinearity: Nonlinearity = "tanh"
    project: bool | None = None

    def __post_init__(self) -> None:
        if self.hidden is not None:
            positive_int("RNNConfig", "hidden", self.hidden)
        one_of("RNNConfig", "nonlinearity", self.nonlinearity, get_args(Nonlinearity))


class RNNState(NamedTuple):
    """State of a vanilla RNN."""

    hidden: HiddenState
    """(b, h): the hidden units after the last step."""


class RNN(SequenceLayer):
    """Vanilla RNN, (b, l, d) -> (b, l, d): h[t] = tanh(W x[t] + U h[t-1] + bias).

    The hidden units are the output if there are d of them and `project` is not True; otherwise
    `out_proj` maps them to d.

    Cost: O(b l h (d + h)) time, one step after the other.
    """

    state_type = RNNState

    def __init__(self, d_model: int, config: RNNConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or RNNConfig()
        self.d_model = positive_int("RNN", "d_model", d_model)
        hidden = config.hidden or d_model
        self.rnn = nn.RNN(d_model, hidden, nonlinearity=config.nonlinearity, batch_first=True)
        self.out_proj: nn.Module = nn.Identity()
        if config.project is False and hidden != d_model:
            raise ConfigError(
                f"RNN: project is False with hidden {hidden}, expected hidden d_model = {d_model}"
            )
        if hidden != d_model if config.project is None else config.project:
            self.out_proj = Linear(hidden, d_model)

    def mix(
        self,
        x: Activations,
        state: RNNState | None,
        cu_seqlens: Offsets | None,
        return_state: bool,
    ) -> tuple[Activations, RNNState]:
        """Mix x (b, l, d) over its steps; see `SequenceLayer.forward`.

        Packed sequences are padded to the longest one.
        """
        sequences = x.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1
        state = self.initial_state(sequences) if state is None else state
        if x.shape[1] == 0:  # torch.nn.RNN refuses an empty sequence
            return x, state
        start = state.hidden.to(x.dtype)
        if cu_seqlens is None:
            hidden, last = self.rnn(x, start.unsqueeze(0))
            return self.out_proj(hidden), RNNState(last.squeeze(0))
        steps = steps_of(cu_seqlens, x.device)
        hidden, _ = self.rnn(unpack(x, steps), start.unsqueeze(0))
        # the state after step t is the hidden units there; after no step, the initial one
        states = torch.cat([start.unsqueeze(1), hidden], dim=1)
        last = states[torch.arange(sequences, device=x.device), steps.sum(dim=1)]
        return self.out_proj(pack(hidden, steps).x), RNNState(last)

    def initial_state(self, batch: int) -> RNNState:
        """Return the zero state for `batch` sequences."""
        weight = next(self.rnn.parameters())
        return RNNState(weight.new_zeros(batch, self.rnn.hidden_size))
