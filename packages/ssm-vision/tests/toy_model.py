"""The smallest model with two stages, for tests of what is common to all models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ssm_core import DataInfo
from ssm_core.errors import ConfigError
from ssm_core.init import exempt_from_weight_decay
from ssm_vision.models.image_model import ImageModel, Stage
from ssm_vision.models.preset import Preset


@dataclass(frozen=True)
class ToyConfig:
    """Options of `Toy`."""

    width: int = 4
    depths: tuple[int, ...] = (1, 2)
    drop_path: float = 0.0
    mixer_options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ConfigError(f"model.width is {self.width}, expected 1 or more")


class ToyStage(nn.Module):
    """Blocks, then half the size and twice the width."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(depth))
        self.downsample = nn.Conv2d(width, 2 * width, 2, 2)


class Toy(ImageModel):
    """Positions, two stages of convolutions, a head; sizes that 8 divides."""

    hierarchical = True

    def __init__(self, config: ToyConfig, info: DataInfo) -> None:
        super().__init__(info)
        w = config.width
        self.config = config
        self.head = nn.Linear(4 * w, info.n_outputs)  # registered first: order must not matter
        rows, columns = (side // 2 for side in self.image_size)
        self.pos_embed = exempt_from_weight_decay(nn.Parameter(torch.randn(1, w, rows, columns)))
        self.patch_embed = nn.Conv2d(self.in_chans, w, 2, 2)
        self.levels = nn.ModuleList(ToyStage(w * 2**i, d) for i, d in enumerate(config.depths))
        self.norm = nn.GroupNorm(1, 4 * w)

    @property
    def stages(self) -> tuple[Stage, ...]:
        w = self.config.width
        return tuple(Stage(w * 2 ** (i + 1), 2 ** (i + 2), f"levels.{i}") for i in range(2))

    @property
    def num_features(self) -> int:
        return 4 * self.config.width

    def forward_features(self, images: Tensor) -> Tensor:
        return self.norm(self.feature_maps(images, [1])[0])

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        pooled = x.mean((2, 3))
        return pooled if pre_logits else self.head(pooled)

    def feature_maps(self, images: Tensor, indices: Sequence[int]) -> list[Tensor]:
        x = self.patch_embed(self.checked(images, 8)) + self.pos_embed
        maps = []
        for level in self.levels:
            for block in level.blocks:
                x = x + self.call(block, x)
            x = level.downsample(x)
            maps.append(x)
        return [maps[i] for i in indices]

    def get_classifier(self) -> nn.Module:
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        self.num_classes = num_classes
        width = self.num_features
        self.head = nn.Linear(width, num_classes) if num_classes else nn.Identity()

    def adapt(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Resample the positions."""
        places = nn.functional.interpolate(tensors["pos_embed"], self.pos_embed.shape[2:])
        return tensors | {"pos_embed": places}


PRESETS = {
    "toy_small": Preset(Toy, ToyConfig(), image_size=16, num_classes=10),
    "toy_wide": Preset(Toy, ToyConfig(width=6), image_size=16, num_classes=10, crop=0.9),
}
