"""Options of an attention layer with rotary positions."""

from __future__ import annotations

from dataclasses import dataclass

from ssm_core.errors import ConfigError
from ssm_core.layers.checks import int_from, positive_int


@dataclass(frozen=True)
class RotaryAttentionConfig:
    """Options of an attention layer with rotary positions; it is causal.

    Attributes:
        n_heads: h, number of heads.
        n_heads_kv: heads of keys and values, a divisor of n_heads; None means n_heads.
        headdim: p, channels per head; None means d / h.
        d_conv: k, width of a causal convolution over queries, keys and values; 0 means none.
        rotary_dim: channels of each head that turn with the position; 0 means none.
        rotary_base: the slowest pair of channels turns by about 1 / rotary_base per step.
        rotary_interleaved: pairs are neighbouring channels, not channels of two halves.
        qkv_bias: bias in in_proj.
        out_bias: bias in out_proj.

    Raises:
        ConfigError: a value out of range.
    """

    n_heads: int = 4
    n_heads_kv: int | None = None
    headdim: int | None = None
    d_conv: int = 0
    rotary_dim: int = 0
    rotary_base: float = 10000.0
    rotary_interleaved: bool = False
    qkv_bias: bool = True
    out_bias: bool = True

    def __post_init__(self) -> None:
        owner = type(self).__name__
        positive_int(owner, "n_heads", self.n_heads)
        for name in ("n_heads_kv", "headdim"):
            if getattr(self, name) is not None:
                positive_int(owner, f"{name} (a number or None)", getattr(self, name))
        for name in ("d_conv", "rotary_dim"):
            int_from(0, owner, name, getattr(self, name))
        if self.n_heads % self.kv_heads:
            raise ConfigError(
                f"{owner}: n_heads_kv is {self.n_heads_kv}, expected a divisor of "
                f"n_heads = {self.n_heads}"
            )
        if self.rotary_dim % 2:
            raise ConfigError(f"{owner}: rotary_dim is {self.rotary_dim}, expected an even number")
        if self.rotary_base <= 1:
            raise ConfigError(f"{owner}: rotary_base is {self.rotary_base}, expected more than 1")

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self.n_heads if self.n_heads_kv is None else self.n_heads_kv

    def channels(self, d_model: int) -> int:
        """p, channels per head, in a model of width `d_model`.

        Raises:
            ConfigError: the heads do not divide it, or more channels turn than there are.
        """
        if self.headdim is None and d_model % self.n_heads:
            raise ConfigError(
                f"RotaryAttention: n_heads is {self.n_heads}, expected a divisor of "
                f"d_model = {d_model}"
            )
        channels = self.headdim or d_model // self.n_heads
        if self.rotary_dim > channels:
            raise ConfigError(
                f"RotaryAttention: rotary_dim is {self.rotary_dim}, expected at most the "
                f"{channels} channels of a head"
            )
        return channels
