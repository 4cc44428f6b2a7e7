"""S4ND-ViT: a vision transformer with S4 in place of attention, Nguyen et al. 2022,
arXiv:2210.06583, section 4.1.

    images (b, c, y, x) -> patches (b, rows, columns, d) -> blocks of S4 or S4ND and an MLP
    -> norm -> mean over all places -> logits

No class token and no position embedding, so that any image size will do. S4ND-ViT-B as published
reads the patches as one sequence, row by row, with bidirectional S4 (N = 64, two channels, one copy
of A and B): mixer "s4" here, `s4nd_vit_base`. Mixer "s4nd" is S4ND over both axes, which the paper
uses in ConvNeXt; with N = 32 the two sets of kernels have as many numbers, `s4nd_vit_base_2d`.

What the paper leaves open: the norm comes before the mean, as in ViTs with a class token; MLPs and
head start as those of ViT (truncated normal, 0.02), mixers as everywhere. Images that no number of
patches fills are padded with 0 on the right and below. The bandlimit, which the paper uses for
images of other sizes than the trained one, is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from ssm_core import DataInfo, build_mixer, make_config
from ssm_core.block import MLP, DropPath
from ssm_core.layers.checks import positive_int, probability
from ssm_core.norm import LayerNorm, at_least_float32
from ssm_vision.models.image_model import FeatureMap, ImageModel, Images, Stage
from ssm_vision.models.preset import Preset
from ssm_vision.models.s4nd import S4ND, ChannelLastMap, S4NDConfig


@dataclass(frozen=True)
class S4NDViTConfig:
    """Options of S4ND-ViT.

    Args:
        patch: pixels of a patch's side.
        d_model: channels of a token.
        n_layers: blocks.
        mlp_ratio: hidden channels of a block's MLP per channel.
        mixer: "s4nd" over rows and columns, or any sequence layer over the places row by row
            (`ssm-train list mixers`).
        mixer_options: options of that layer; of "s4nd" those of `S4NDConfig`.
        drop_path: probability of dropping a branch in training, linear from 0 to this in the last.
    """

    patch: int = 16
    d_model: int = 768
    n_layers: int = 12
    mlp_ratio: int = 4
    mixer: str = "s4nd"
    mixer_options: dict[str, Any] = field(default_factory=dict)
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        for name in ("patch", "d_model", "n_layers", "mlp_ratio"):
            positive_int("s4nd-vit", name, getattr(self, name))
        probability("s4nd-vit", "drop_path", self.drop_path)


class S4NDViTBlock(nn.Module):
    """x + drop(mixer(norm1(x))), then x + drop(mlp(norm2(x))), over a map (b, y, x, d)."""

    branches = ("mixer", "mlp")

    def __init__(self, config: S4NDViTConfig, drop_path: float) -> None:
        super().__init__()
        d = config.d_model
        self.norm1, self.norm2 = LayerNorm(d, eps=1e-6), LayerNorm(d, eps=1e-6)
        self.mixer: nn.Module
        if config.mixer == "s4nd":
            self.mixer = S4ND(d, make_config(S4NDConfig, config.mixer_options, "mixer_options"))
        else:
            self.mixer = build_mixer(config.mixer, d, config.mixer_options)
        self.mlp = MLP(d, config.mlp_ratio * d)
        _init_linear(self.mlp.fc1)
        _init_linear(self.mlp.fc2)
        self.drop = DropPath(drop_path)

    def forward(self, x: ChannelLastMap) -> ChannelLastMap:
        x = at_least_float32(x)
        x = x + self.drop(self._mix(self.norm1(x)))
        result: Tensor = x + self.drop(self.mlp(self.norm2(x)))
        return result

    def _mix(self, x: ChannelLastMap) -> ChannelLastMap:
        if isinstance(self.mixer, S4ND):
            return self.mixer(x)
        mixed: Tensor = self.mixer(x.flatten(1, 2))
        return mixed.view(x.shape)


class S4NDViT(ImageModel):
    """Images (b, c, y, x) of any size -> logits (b, classes); see the module.

    Cost: that of the mixers over l = y x / patch^2 places, and O(b l d^2 (2 mlp_ratio + channels))
    for the linear maps of a block.
    """

    hierarchical = False

    def __init__(self, config: S4NDViTConfig | None, info: DataInfo) -> None:
        """Build the model for the images and classes of `info`.

        Raises:
            ConfigError: the data are not images, or an option that the mixer refuses.
        """
        super().__init__(info)
        self.config = config = config or S4NDViTConfig()
        d, p = config.d_model, config.patch
        self.patch_embed = nn.Conv2d(self.in_chans, d, p, stride=p)
        last = max(config.n_layers - 1, 1)
        self.blocks = nn.ModuleList(
            S4NDViTBlock(config, config.drop_path * i / last) for i in range(config.n_layers)
        )
        self.norm = LayerNorm(d, eps=1e-6)
        self.head: nn.Module = nn.Identity()
        self.reset_classifier(self.num_classes)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Every block."""
        d, p = self.config.d_model, self.config.patch
        return tuple(Stage(d, p, f"blocks.{i}") for i in range(len(self.blocks)))

    @property
    def num_features(self) -> int:
        """Channels of what the head reads."""
        return self.config.d_model

    def forward_features(self, images: Images) -> ChannelLastMap:
        """The normed map (b, rows, columns, d) of the last block."""
        x = self._patches(images)
        for block in self.blocks:
            x = self.call(block, x)
        normed: Tensor = self.norm(x)
        return normed

    def forward_head(self, x: ChannelLastMap, pre_logits: bool = False) -> Tensor:
        """The mean over all places, classified."""
        pooled = x.mean(dim=(1, 2))
        return pooled if pre_logits else self.head(pooled)

    def feature_maps(self, images: Images, indices: Sequence[int]) -> list[FeatureMap]:
        """Maps (b, d, rows, columns) behind the blocks `indices`."""
        x, maps = self._patches(images), {}
        for i, block in enumerate(self.blocks[: max(indices, default=-1) + 1]):
            x = self.call(block, x)
            if i in indices:
                maps[i] = x.permute(0, 3, 1, 2)
        return [maps[i] for i in indices]

    def get_classifier(self) -> nn.Module:
        """The last linear map, or an identity after `reset_classifier(0)`."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new classifier in; there is one way of pooling, the mean."""
        self.num_classes = num_classes
        if not num_classes:
            self.head = nn.Identity()
            return
        like = self.norm.weight
        self.head = nn.Linear(self.config.d_model, num_classes, device=like.device)
        self.head.to(like.dtype)
        _init_linear(self.head)

    def _patches(self, images: Images) -> ChannelLastMap:
        images = self.checked(images)
        p = self.config.patch
        height, width = images.shape[2:]
        images = F.pad(images, (0, -width % p, 0, -height % p))
        patches: Tensor = self.patch_embed(images)
        return patches.permute(0, 2, 3, 1)


def _init_linear(part: nn.Linear) -> None:
    nn.init.trunc_normal_(part.weight, std=0.02)
    nn.init.zeros_(part.bias)


#: 88.8 million parameters each, as the paper says of S4ND-ViT-B
PRESETS: dict[str, Preset] = {
    "s4nd_vit_base": Preset(
        S4NDViT,
        S4NDViTConfig(
            mixer="s4",
            mixer_options={
                "d_state": 64,
                "channels": 2,
                "bidirectional": True,
                "n_ssm": 1,
                "l_max": 256,
            },
            drop_path=0.1,
        ),
    ),
    "s4nd_vit_base_2d": Preset(
        S4NDViT,
        S4NDViTConfig(mixer_options={"d_state": 32, "channels": 2, "n_ssm": 1}, drop_path=0.1),
    ),
}
