"""Options of Vision Mamba (Vim)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from ssm_core.errors import ConfigError
from ssm_core.layers.checks import int_from, one_of, positive_int, probability
from ssm_core.norm import NORM_NAMES, NormName

ClassToken = Literal["middle", "head", "double", "none", "random"]
Pool = Literal["last", "mean", "max", "all"]
Squeezed = Literal["none", "input", "mixer", "block"]


@dataclass(frozen=True)
class VimConfig:
    """A Vision Mamba; the default values are those of the published tiny model.

    Args:
        patch_size: pixels of a patch's side.
        stride: pixels from one patch to the next; smaller than `patch_size`, patches overlap.
        embed_dim: channels of a token.
        depth: number of blocks.
        class_token: where the token that the head reads is put: in the middle of the patches (after
            the first half, rounded down), at their head, double (at both ends, the head reads the
            mean of the two), none, or random (see `Vim`).
        pool: what the head reads without a class token: the last token, the mean of all, or every
            token, with the maximum of the logits over tokens (max) or all of them (all).
        positions: add a learned embedding of the place to every token, the class token included.
        mixer: sequence layer of every block (`ssm-train list mixers`). A causal one sees of the
            image only what stands before the class token: choose class_token none for it.
        mixer_options: options of that layer, e.g. {d_state: 16, d_conv: 4, expand: 2} or, for
            bimamba, divide_out and layer_scale.
        norm: rms or layer.
        norm_eps: added to the mean square before the root.
        dropout: of the tokens before the first block in training, 0..1.
        drop_path: probability of dropping a block's branch in training, growing linearly from 0 in
            the first block to this value in the last.
        squeeze_excitation: where channels are weighted by what the image holds (Hu et al. 2018,
            Figure 5): none, input (of the mixer), mixer (its output, before the residual is added,
            the paper's standard place) or block (after that addition).
        se_reduction: channels per hidden channel of the squeeze-and-excitation.
        depthwise: hidden channels per channel of an inverted residual with a depthwise
            convolution over the grid of patches, at the end of each block (6 in MobileNetV2); 0
            means none.
        depthwise_kernel: patches of the kernel's side, odd.

    Raises:
        ConfigError: a value out of range.
    """

    patch_size: int = 16
    stride: int = 16
    embed_dim: int = 192
    depth: int = 24
    class_token: ClassToken = "middle"
    pool: Pool = "mean"
    positions: bool = True
    mixer: str = "bimamba"
    mixer_options: dict[str, Any] = field(default_factory=dict)
    norm: NormName = "rms"
    norm_eps: float = 1e-5
    dropout: float = 0.0
    drop_path: float = 0.1
    squeeze_excitation: Squeezed = "none"
    se_reduction: int = 4
    depthwise: int = 0
    depthwise_kernel: int = 3

    def __post_init__(self) -> None:
        for name in ("patch_size", "stride", "embed_dim", "depth", "se_reduction"):
            positive_int("VimConfig", name, getattr(self, name))
        if self.stride > self.patch_size:
            raise ConfigError(
                f"VimConfig: stride is {self.stride}, expected at most patch_size, "
                f"{self.patch_size}: pixels between the patches would never be seen"
            )
        one_of("VimConfig", "class_token", self.class_token, get_args(ClassToken))
        one_of("VimConfig", "pool", self.pool, get_args(Pool))
        one_of("VimConfig", "norm", self.norm, NORM_NAMES)
        one_of("VimConfig", "squeeze_excitation", self.squeeze_excitation, get_args(Squeezed))
        probability("VimConfig", "dropout", self.dropout)
        probability("VimConfig", "drop_path", self.drop_path)
        if not 0 <= self.norm_eps < math.inf:
            raise ConfigError(f"VimConfig: norm_eps is {self.norm_eps!r}, expected 0 or more")
        int_from(0, "VimConfig", "depthwise", self.depthwise)
        if positive_int("VimConfig", "depthwise_kernel", self.depthwise_kernel) % 2 == 0:
            raise ConfigError(
                f"VimConfig: depthwise_kernel is {self.depthwise_kernel}, expected an odd number"
            )
