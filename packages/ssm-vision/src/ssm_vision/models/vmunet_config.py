"""Options of VM-UNet."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ssm_core.errors import ConfigError
from ssm_core.layers.checks import positive_int, probability
from ssm_vision.models.ss2d import SS2DConfig


@dataclass(frozen=True)
class VMUNetConfig(SS2DConfig):
    """Options of VM-UNet: those of `SS2DConfig`, and the following. The defaults are as published.

    Attributes:
        dims: channels of the encoder's stages; the decoder has them in reverse.
        depths: blocks of the encoder's stages.
        depths_decoder: blocks of the decoder's stages, the deepest first.
        patch_size: pixels of a side of what the first stage sees as one; must divide dims[0].
        patch_norm: norm the embedded patches.
        drop_path: probability of dropping a block's branch of an image in training: growing from 0
            in the encoder's first block to this value in its last, falling back to 0 in the
            decoder.
        mixer: a sequence layer over the rows laid end to end (`ssm-train list mixers`) in place of
            SS2D; None means SS2D.
        mixer_options: options of that layer, e.g. {d_state: 16}.

    Raises:
        ConfigError: a value out of range.
    """

    dims: tuple[int, ...] = (96, 192, 384, 768)
    depths: tuple[int, ...] = (2, 2, 9, 2)
    depths_decoder: tuple[int, ...] = (2, 9, 2, 2)
    patch_size: int = 4
    patch_norm: bool = True
    drop_path: float = 0.2
    mixer: str | None = None
    mixer_options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        owner = "VMUNetConfig"
        lengths = {len(self.dims), len(self.depths), len(self.depths_decoder)}
        if len(lengths) != 1 or not self.dims:
            raise ConfigError(
                f"{owner}: dims is {self.dims!r}, depths {self.depths!r} and depths_decoder "
                f"{self.depths_decoder!r}, expected a number of each for every stage"
            )
        for name in ("dims", "depths", "depths_decoder"):
            for value in getattr(self, name):
                positive_int(owner, name, value)
        if self.dims[0] % positive_int(owner, "patch_size", self.patch_size):
            raise ConfigError(
                f"{owner}: patch_size is {self.patch_size}, expected a divisor of dims[0] = "
                f"{self.dims[0]}"
            )
        probability(owner, "drop_path", self.drop_path)
        if self.mixer is None and self.mixer_options:
            raise ConfigError(
                f"{owner}: mixer_options is {self.mixer_options!r}, expected none without a mixer"
            )

    @property
    def multiple(self) -> int:
        """Sides of an image are made a multiple of so many pixels."""
        return self.patch_size * 2 ** (len(self.dims) - 1)
