"""A tower: residual blocks around any kind of sequence layer, and a norm at the end.

Parameter names (`layers.{i}.norm`, `layers.{i}.mixer`, `norm_f`) are those of the official Mamba
and Vim checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

from torch import nn

from ssm_core.block import Block
from ssm_core.errors import ConfigError
from ssm_core.init import rescale_residual_branches, zero_linear_biases
from ssm_core.layers.checks import int_from, one_of, positive_int, probability
from ssm_core.layers.protocol import LayerState, SequenceLayer, StateError
from ssm_core.norm import NORM_NAMES, NormName, make_norm
from ssm_core.shapes import Activations, Offsets


@dataclass(frozen=True)
class TowerConfig:
    """Options of a tower.

    Attributes:
        d_model: d, channels of the residual stream.
        n_layers: number of blocks.
        mlp_hidden: hidden channels of each block's MLP; 0 means no MLP.
        norm: "rms" or "layer".
        dropout: probability of dropping a number of a branch's output in training.
        drop_path: probability of dropping a whole branch of a sequence in training, growing
            linearly from 0 in the first block to this value in the last.
        bias: biases in the norms and MLPs; mixers have options of their own.

    Raises:
        ConfigError: a value out of range.
    """

    d_model: int = 64
    n_layers: int = 2
    mlp_hidden: int = 0
    norm: NormName = "rms"
    dropout: float = 0.0
    drop_path: float = 0.0
    bias: bool = True

    def __post_init__(self) -> None:
        positive_int("TowerConfig", "d_model", self.d_model)
        positive_int("TowerConfig", "n_layers", self.n_layers)
        int_from(0, "TowerConfig", "mlp_hidden", self.mlp_hidden)
        one_of("TowerConfig", "norm", self.norm, NORM_NAMES)
        probability("TowerConfig", "dropout", self.dropout)
        probability("TowerConfig", "drop_path", self.drop_path)


class BlockStack(SequenceLayer):
    """Blocks one after the other and a final norm, (b, l, d) -> (b, l, d), as one layer.

    The state is the tuple of the blocks' states. At initialisation every Linear bias is zero
    (except step-size biases) and the last matrix of each branch is divided by sqrt(number of
    blocks).
    """

    def __init__(self, d_model: int, blocks: Iterable[Block], norm_f: nn.Module) -> None:
        super().__init__()
        self.d_model = d_model
        self.layers = nn.ModuleList(blocks)
        self.norm_f = norm_f
        self.causal = all(block.causal for block in self.layers)
        zero_linear_biases(self)
        rescale_residual_branches(self, len(self.layers))

    def mix(
        self,
        x: Activations,
        state: tuple[LayerState, ...] | None,
        cu_seqlens: Offsets | None,
        return_state: bool,
    ) -> tuple[Activations, tuple[LayerState, ...]]:
        """Run all blocks on x (b, l, d); see `SequenceLayer.forward`."""
        if state is not None and len(state) != len(self.layers):
            raise StateError(
                f"{type(self).__name__}: state has {len(state)} entries, "
                f"expected one per layer, {len(self.layers)}"
            )
        states = []
        for i, block in enumerate(self.layers):
            block_state = None if state is None else state[i]
            x = block(x, block_state, return_state=return_state, cu_seqlens=cu_seqlens)
            if return_state:
                x, block_state = x
                states.append(block_state)
        return self.norm_f(x), tuple(states)

    def initial_state(self, batch: int) -> tuple[LayerState, ...]:
        """Return the states of all blocks before the first step, for `batch` sequences."""
        self._require_causal("initial_state")
        return tuple(cast(Block, block).initial_state(batch) for block in self.layers)


class Tower(BlockStack):
    """`n_layers` blocks of one kind and a final norm; see `BlockStack`."""

    def __init__(self, make_mixer: Callable[[], SequenceLayer], config: TowerConfig) -> None:
        """Build the tower; `make_mixer` is called once per block.

        Raises:
            ConfigError: `make_mixer` returns something else than a layer of width `d_model`.
        """
        last = max(config.n_layers - 1, 1)
        blocks = (
            Block(
                config.d_model,
                _checked(make_mixer(), config.d_model),
                config.mlp_hidden,
                config.norm,
                config.dropout,
                config.drop_path * i / last,
                config.bias,
            )
            for i in range(config.n_layers)
        )
        norm_f = make_norm(config.norm, config.d_model, bias=config.bias)
        super().__init__(config.d_model, blocks, norm_f)
        self.config = config


def _checked(mixer: object, d_model: int) -> SequenceLayer:
    if not isinstance(mixer, SequenceLayer):
        raise ConfigError(
            f"Tower: make_mixer returned a {type(mixer).__name__}, expected a SequenceLayer"
        )
    if mixer.d_model != d_model:
        raise ConfigError(
            f"Tower: make_mixer returned a {type(mixer).__name__} with d_model {mixer.d_model}, "
            f"expected {d_model}"
        )
    return mixer
