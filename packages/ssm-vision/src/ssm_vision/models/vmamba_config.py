"""Options of VMamba and the published sizes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from ssm_core.errors import ConfigError
from ssm_core.layers.checks import one_of, positive_int, probability
from ssm_vision.models.ss2d import V05_NOZ, SS2DConfig

Stem = Literal["patches", "convolutions"]
Downsample = Literal["merging", "conv2x2", "conv3x3"]


@dataclass(frozen=True)
class VMambaConfig(SS2DConfig):
    """Options of VMamba: those of `SS2DConfig`, and the following. The defaults are vanilla tiny.

    Attributes:
        depths: blocks of each stage.
        dims: channels of each stage.
        mlp_ratio: hidden channels of each block's MLP per channel; 0 means no MLP.
        stem: one convolution of patches that do not overlap, or two overlapping 3x3 convolutions.
        patch_size: pixels of a patch's side; other than 4 only for patches.
        downsample: between stages: 2x2 pixels merged by a linear map, or a convolution of stride 2.
        positions: add a learned embedding of the place to every patch, interpolated (bicubic) to
            images of another size.
        drop_path: probability of dropping a branch of an image in training, growing linearly from
            0 in the first block to this value in the last.
        mixer: a sequence layer over the rows laid end to end (`ssm-train list mixers`) in place of
            SS2D; None means SS2D.
        mixer_options: options of that layer, e.g. {d_state: 16}.

    Raises:
        ConfigError: a value out of range.
    """

    depths: tuple[int, ...] = (2, 2, 9, 2)
    dims: tuple[int, ...] = (96, 192, 384, 768)
    mlp_ratio: float = 0.0
    stem: Stem = "patches"
    patch_size: int = 4
    downsample: Downsample = "merging"
    positions: bool = False
    drop_path: float = 0.2
    mixer: str | None = None
    mixer_options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        owner = type(self).__name__
        if not self.depths or len(self.depths) != len(self.dims):
            raise ConfigError(
                f"{owner}: depths is {self.depths!r} and dims {self.dims!r}, expected a number of "
                "each for every stage"
            )
        for name in ("depths", "dims"):
            for value in getattr(self, name):
                positive_int(owner, name, value)
        if not 0 <= self.mlp_ratio < math.inf:
            raise ConfigError(f"{owner}: mlp_ratio is {self.mlp_ratio!r}, expected 0 or more")
        one_of(owner, "stem", self.stem, get_args(Stem))
        one_of(owner, "downsample", self.downsample, get_args(Downsample))
        positive_int(owner, "patch_size", self.patch_size)
        if self.stem == "convolutions" and (self.patch_size != 4 or self.dims[0] % 2):
            raise ConfigError(
                f"{owner}: patch_size is {self.patch_size} and dims[0] {self.dims[0]}, expected 4 "
                "and an even number with stem 'convolutions'"
            )
        probability(owner, "drop_path", self.drop_path)
        if self.mixer is None and self.mixer_options:
            raise ConfigError(
                f"{owner}: mixer_options is {self.mixer_options!r}, expected none without a mixer"
            )

    @property
    def least_pixels(self) -> int:
        """Of an image's side: a row for every convolution that does not pad."""
        halvings = len(self.depths) - 1 if self.downsample == "conv2x2" else 0
        rows: int = 2**halvings
        # two padded convolutions of stride 2 round up
        return (
            self.patch_size * rows if self.stem == "patches" else self.patch_size * (rows - 1) + 1
        )


def vanilla(depth: int, dim: int, drop_path: float) -> VMambaConfig:
    """A size of the first release, with `depth` blocks in the third stage."""
    return VMambaConfig(depths=(2, 2, depth, 2), dims=doubling(dim), drop_path=drop_path)


def ungated(ssm_ratio: float, depth: int, dim: int, drop_path: float) -> VMambaConfig:
    """A size of the later releases, called s{ssm_ratio}l{depth}."""
    return VMambaConfig(
        d_state=V05_NOZ.d_state,
        ssm_ratio=ssm_ratio,
        gated=V05_NOZ.gated,
        conv_bias=V05_NOZ.conv_bias,
        float32_scan=V05_NOZ.float32_scan,
        depths=(2, 2, depth, 2),
        dims=doubling(dim),
        mlp_ratio=4.0,
        stem="convolutions",
        downsample="conv3x3",
        drop_path=drop_path,
    )


def doubling(dim: int, stages: int = 4) -> tuple[int, ...]:
    """Channels of the stages: twice as many in each as in the one before."""
    return tuple(dim * 2**i for i in range(stages))
