"""Images as sequences of pixels: at every step a distribution over the grey levels of the next.

    images (b, c, y, x) -> levels, row by row, the channels of a pixel side by side (b, y, x c)
    -> at every place the pixels before it, as far as `reach` -> (b, l, d) + row + column + class
    -> causal tower (b, l, d) -> logits (b, l, levels) of the pixel at that place

The tower carries what the whole image so far looks like; the neighbours spare it to remember single
pixels for a whole row.

Sources: van den Oord et al. 2016, arXiv:1601.06759 (images as discrete pixels in raster order,
causal neighbourhoods); Gu & Dao 2023, arXiv:2312.00752 (the default mixer).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, TypeAlias

import torch
from einops import rearrange
from torch import Tensor, nn

from ssm_core import DataInfo, Tower, TowerConfig, build_mixer
from ssm_core.errors import ConfigError
from ssm_core.init import exempt_from_weight_decay
from ssm_core.layers.checks import int_from, positive_int
from ssm_core.shapes import Activations
from ssm_vision.classifier import POSITION_STD
from ssm_vision.data import mnist
from ssm_vision.generative.unit_range import (
    check_images,
    check_labels,
    image_shape,
    unit_range,
)
from ssm_vision.models.image_model import Images

Levels: TypeAlias = Annotated[Tensor, "b y xc"]
"""Grey levels 0, 1, .., the channels of a pixel side by side; -1 where there is no pixel."""
PixelLogits: TypeAlias = Annotated[Tensor, "b l levels"]
Labels: TypeAlias = Annotated[Tensor, "b"]


@dataclass(frozen=True)
class PixelModelConfig:
    """An autoregressive model of pixels.

    Args:
        levels: grey levels that a channel is rounded to, 2..256.
        d_model: channels between layers.
        n_layers: residual blocks.
        mixer: a causal sequence layer (`ssm-train list mixers`).
        mixer_options: options of that layer, e.g. {d_state: 16}.
        mlp_hidden: hidden channels of each block's MLP; 0 means no MLP.
        dropout: of each block's output in training, 0..1.
        reach: rows above and columns to either side that every step sees, 1 or more.
        conditional: draw digits of a class asked for.
        mean, std: of the data set's normalisation, per channel.
    """

    levels: int = 4
    d_model: int = 64
    n_layers: int = 2
    mixer: str = "mamba"
    mixer_options: dict[str, Any] = field(default_factory=dict)
    mlp_hidden: int = 0
    dropout: float = 0.0
    reach: int = 2
    conditional: bool = True
    mean: tuple[float, ...] = mnist.NORMALISATION.mean
    std: tuple[float, ...] = mnist.NORMALISATION.std

    def __post_init__(self) -> None:
        positive_int("pixel-model", "reach", self.reach)
        if int_from(2, "pixel-model", "levels", self.levels) > 256:
            raise ConfigError(f"pixel-model: levels is {self.levels}, expected at most 256")


class PixelModel(nn.Module):
    """Images (b, c, y, x) of one fixed size -> logits (b, l, levels), l = y x c.

    Cost: that of the tower over l steps, and O(b l d levels reach^2).
    """

    def __init__(self, config: PixelModelConfig, info: DataInfo) -> None:
        """Build the model for the images and classes of `info`.

        Raises:
            ConfigError: the data are not images, the mixer is not causal, or an option that the
                tower or the mixer refuses.
        """
        super().__init__()
        self.config, self.info = config, info
        channels, self.rows, width = image_shape("pixel-model", info)
        self.columns = width * channels
        self.side = config.reach * channels
        self.range = unit_range("pixel-model", config.mean, config.std, channels)
        self.neighbours = config.reach * (2 * self.side + 1) + self.side
        self.embed = nn.Linear(self.neighbours * config.levels, config.d_model)
        self.row = _places(self.rows, config.d_model)
        self.column = _places(self.columns, config.d_model)
        self.label: nn.Embedding | None = None
        if config.conditional:
            self.label = nn.Embedding(info.n_outputs, config.d_model)
            nn.init.normal_(self.label.weight, std=POSITION_STD)
        self.tower = Tower(
            lambda: build_mixer(config.mixer, config.d_model, config.mixer_options),
            TowerConfig(
                d_model=config.d_model,
                n_layers=config.n_layers,
                mlp_hidden=config.mlp_hidden,
                dropout=config.dropout,
            ),
        )
        if not self.tower.causal:
            raise ConfigError(
                f"model.mixer is {config.mixer!r}, which reads the pixels to predict; expected a "
                "causal one, e.g. mamba"
            )
        self.head = nn.Linear(config.d_model, config.levels)

    def forward(self, images: Images, labels: Labels | None = None) -> PixelLogits:
        """Logits of every pixel, each from the pixels before it alone.

        Args:
            images: (b, c, y, x), normalised.
            labels: classes (b,) int64 if the model is conditional, else None.
        Raises:
            ShapeError: images of another size, or labels missing or not wanted.
        """
        check_images("PixelModel", images, self.info.input_shape)
        check_labels("PixelModel", labels, self.config.conditional, images.shape[0])
        logits: Tensor = self.head(self.tower(self.tokens(self.quantise(images), labels)))
        return logits

    def quantise(self, images: Images) -> Levels:
        """Normalised images (b, c, y, x) -> levels (b, y, x c): [0, 1] in equal parts."""
        levels = self.config.levels
        parts = (self.range.to_unit(images) * levels).long().clamp(max=levels - 1)
        return rearrange(parts, "b c y x -> b y (x c)")

    def dequantise(self, levels: Levels) -> Images:
        """Levels (b, y, x c) -> images (b, c, y, x) of 0..1, the ends black and white."""
        channels = self.info.input_shape[0]
        unit = levels / (self.config.levels - 1)
        return rearrange(unit, "b y (x c) -> b c y x", c=channels)

    def tokens(self, levels: Levels, labels: Labels | None) -> Activations:
        """What the tower reads: (b, l, d) for levels (b, y, x c), all rows or the first ones."""
        window = (self.config.reach + 1, 2 * self.side + 1)
        windows = self.padded(levels).unfold(1, window[0], 1).unfold(2, window[1], 1)
        seen = self.seen(windows.flatten(3))
        places = self.row[: levels.shape[1], None] + self.column
        return self._with_label(seen + places, labels).flatten(1, 2)

    def token(self, window: Levels, place: tuple[int, int], labels: Labels | None) -> Tensor:
        """What the tower reads at one place (y, x c): (b, d).

        Args:
            window: (b, reach + 1, 2 side + 1) of `padded` levels, with the place in the middle of
                its last row.
        """
        y, x = place
        seen = self.seen(window.flatten(1)) + self.row[y] + self.column[x]
        return self._with_label(seen, labels)

    def padded(self, levels: Levels) -> Levels:
        """Levels with a frame of -1: `reach` rows above, `side` columns to the left and right."""
        frame = (self.side, self.side, self.config.reach, 0)
        return nn.functional.pad(levels, frame, value=-1)

    def seen(self, windows: Tensor) -> Tensor:
        """Embed windows (.., reach + 1 by 2 side + 1): what lies before the place, (.., d)."""
        before = windows[..., : self.neighbours].unsqueeze(-1)
        kinds = torch.arange(self.config.levels, device=windows.device)
        one_hot = (before == kinds).flatten(-2).to(self.embed.weight.dtype)
        embedded: Tensor = self.embed(one_hot)
        return embedded

    def _with_label(self, tokens: Tensor, labels: Labels | None) -> Tensor:
        if self.label is None or labels is None:
            return tokens
        classes: Tensor = self.label(labels)
        return tokens + classes.view(-1, *[1] * (tokens.dim() - 2), tokens.shape[-1])


def _places(count: int, d_model: int) -> nn.Parameter:
    places = torch.empty(count, d_model)
    nn.init.normal_(places, std=POSITION_STD)
    return exempt_from_weight_decay(nn.Parameter(places))
