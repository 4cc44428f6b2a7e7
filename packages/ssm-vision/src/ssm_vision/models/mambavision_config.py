"""Options of MambaVision."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from ssm_core.errors import ConfigError
from ssm_core.layers.checks import int_from, positive_int, probability


@dataclass(frozen=True)
class MambaVisionConfig:
    """MambaVision; the defaults are the published tiny model (T).

    Attributes:
        dim: channels of level 0; they double at each of the three downsamplings.
        in_dim: channels inside the stem.
        stem_strides: of the two convolutions of the stem; (1, 1) for very small images.
        depths: blocks of the four levels. The first two are convolutions; in the others the first
            half (and the middle one) has the mixer, the rest attention.
        num_heads: of the attention in levels 2 and 3; must divide their channels.
        windows: side of the windows of levels 2 and 3, in positions of their maps.
        mlp_ratio: hidden channels of an MLP per channel.
        qkv_bias: bias of queries, keys and values.
        layer_scale: initial factor of the branches in levels 2 and 3; None means no factors.
        layer_scale_conv: the same in levels 0 and 1.
        dropout: after attention and in the MLPs, in training.
        attention_dropout: of attention weights, in training.
        drop_path: probability of dropping a branch in training, from 0 in the first block of all
            to this value in the last; per image in levels 0 and 1, per window in levels 2 and 3.
        mixer: sequence layer before the attention in levels 2 and 3 (`ssm-train list mixers`).
        mixer_options: options of that layer, e.g. {d_state: 16}.
        attention_window: side of a sliding window, an odd number: the attention blocks of levels 2
            and 3 then work on the level's whole map instead of its windows, every position with
            the positions around it that are on the map (at its border fewer). Branches are then
            dropped per image there. 0 means off.
        attention_dilation: distance of neighbouring positions in the sliding window.

    Raises:
        ConfigError: a value out of range.
    """

    dim: int = 80
    in_dim: int = 32
    stem_strides: tuple[int, int] = (2, 2)
    depths: tuple[int, int, int, int] = (1, 3, 8, 4)
    num_heads: tuple[int, int] = (8, 16)
    windows: tuple[int, int] = (14, 7)
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    layer_scale: float | None = None
    layer_scale_conv: float | None = None
    dropout: float = 0.0
    attention_dropout: float = 0.0
    drop_path: float = 0.2
    mixer: str = "mambavision"
    mixer_options: dict[str, Any] = field(default_factory=dict)
    attention_window: int = 0
    attention_dilation: int = 1

    def __post_init__(self) -> None:
        for name in ("dim", "in_dim", "attention_dilation"):
            positive_int("model", name, getattr(self, name))
        for name, count in (("stem_strides", 2), ("depths", 4), ("num_heads", 2), ("windows", 2)):
            _numbers(name, getattr(self, name), count)
        for name in ("dropout", "attention_dropout", "drop_path"):
            probability("model", name, getattr(self, name))
        if not 1 / self.channels(2) <= self.mlp_ratio < math.inf:
            raise ConfigError(f"model: mlp_ratio is {self.mlp_ratio!r}, expected a positive number")
        for level, heads in zip((2, 3), self.num_heads, strict=True):
            if self.channels(level) % heads:
                raise ConfigError(
                    f"model: num_heads is {heads} in level {level}, expected a divisor of its "
                    f"{self.channels(level)} channels"
                )
        int_from(0, "model", "attention_window", self.attention_window)
        if self.attention_window and self.attention_window % 2 == 0:
            raise ConfigError(
                f"model: attention_window is {self.attention_window}, expected an odd number (the "
                "position itself is in the middle) or 0"
            )

    def channels(self, level: int) -> int:
        """Channels of a level's maps."""
        return self.dim * 2**level


def _numbers(name: str, values: object, count: int) -> None:
    """Check `count` integers of at least 1."""
    if not isinstance(values, tuple | list) or len(values) != count:
        raise ConfigError(f"model: {name} is {values!r}, expected {count} integers")
    for value in values:
        positive_int("model", name, value)
