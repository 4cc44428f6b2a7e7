"""A denoiser that reads an image as patches, with bidirectional Mamba or any other mixer.

    noisy images (b, c, y, x) -> patches, row by row (b, l, d) + positions
    -> blocks x + (1 + gate) mixer(norm(x) (1 + scale) + shift), where gate, scale and shift come
    from the time and the class -> pixels (b, k, y, x), beside the noisy ones
    -> two convolutions, which smooth the borders of the patches -> prediction (b, c, y, x)

Sources: Ho et al. 2020, arXiv:2006.11239 (diffusion, sinusoidal time); Peebles & Xie 2023,
arXiv:2212.09748 (patches, adaptive norms); Bao et al. 2023, arXiv:2209.12152 (convolution at the
end); Zhu et al. 2024, arXiv:2401.09417 (bidirectional Mamba over patches).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from ssm_core import DataInfo, build_mixer
from ssm_core.errors import ConfigError
from ssm_core.init import exempt_from_weight_decay, rescale_residual_branches, zero_linear_biases
from ssm_core.layers.checks import int_from, positive_int, probability
from ssm_core.norm import LayerNorm
from ssm_core.shapes import Activations, OneStep
from ssm_vision.classifier import POSITION_STD
from ssm_vision.data import mnist
from ssm_vision.generative.diffusion_process import (
    DiffusionProcess,
    Prediction,
    ScheduleName,
    Times,
)
from ssm_vision.generative.unit_range import check_images, image_shape, unit_range
from ssm_vision.models.image_model import Images


@dataclass(frozen=True)
class DiffusionModelConfig:
    """A denoiser and the noise it was trained for.

    Args:
        patch: pixels of a patch's side; must divide the height and the width of the image.
        d_model: channels of a token, even.
        n_layers: residual blocks.
        mixer: sequence layer of every block (`ssm-train list mixers`).
        mixer_options: options of that layer, e.g. {d_state: 16}.
        refine: k, channels of the convolutions at the end.
        conditional: draw images of a class asked for.
        label_dropout: share of training images shown without their class, for guidance, 0..1.
        steps: T, steps from an image to noise.
        schedule: of the noise, cosine or linear.
        prediction: what the network predicts, v or epsilon.
        mean, std: of the data set's normalisation, per channel.
    """

    patch: int = 4
    d_model: int = 96
    n_layers: int = 4
    mixer: str = "bimamba"
    mixer_options: dict[str, Any] = field(default_factory=dict)
    refine: int = 16
    conditional: bool = True
    label_dropout: float = 0.1
    steps: int = 1000
    schedule: ScheduleName = "cosine"
    prediction: Prediction = "v"
    mean: tuple[float, ...] = mnist.NORMALISATION.mean
    std: tuple[float, ...] = mnist.NORMALISATION.std

    def __post_init__(self) -> None:
        for name in ("patch", "n_layers", "refine"):
            positive_int("diffusion-model", name, getattr(self, name))
        if int_from(2, "diffusion-model", "d_model", self.d_model) % 2:
            raise ConfigError(
                f"diffusion-model: d_model is {self.d_model}, expected an even number"
            )
        probability("diffusion-model", "label_dropout", self.label_dropout)


class ConditionedBlock(nn.Module):
    """x + (1 + gate) mixer(norm(x) (1 + scale) + shift), all three linear in the condition.

    They start at 0, so that the block starts as a plain residual block.
    """

    branches = ("mixer",)

    def __init__(self, d_model: int, mixer: nn.Module) -> None:
        super().__init__()
        self.norm = LayerNorm(d_model)
        self.mixer = mixer
        self.modulate = nn.Linear(d_model, 3 * d_model)
        nn.init.zeros_(self.modulate.weight)

    def forward(self, x: Activations, condition: OneStep) -> Activations:
        shift, scale, gate = self.modulate(condition).unsqueeze(1).chunk(3, dim=-1)
        branch = self.mixer(self.norm(x) * (1 + scale) + shift)
        result: Tensor = x + (1 + gate) * branch
        return result


class DiffusionModel(nn.Module):
    """Noisy images (b, c, y, x) of one fixed size and times (b,) -> what `process` predicts.

    Images here are those of the data set scaled to -1..1 (`scale`, `unscale`).

    Cost: that of n_layers mixers over l = y x / patch^2 steps, and O(b y x k (k + c)).
    """

    def __init__(self, config: DiffusionModelConfig, info: DataInfo) -> None:
        """Build the model for the images and classes of `info`.

        Raises:
            ConfigError: the data are not images, `patch` does not divide them, or an option that
                the mixer refuses.
        """
        super().__init__()
        self.config, self.info = config, info
        channels, height, width = image_shape("diffusion-model", info)
        p, d, k = config.patch, config.d_model, config.refine
        if height % p or width % p:
            raise ConfigError(
                f"model.patch is {p}, expected a divisor of the image's {height} x {width} pixels"
            )
        self.rows = height // p
        self.range = unit_range("diffusion-model", config.mean, config.std, channels)
        self.process = DiffusionProcess(config.schedule, config.steps, config.prediction)
        self.embed = nn.Linear(channels * p**2, d)
        places = torch.empty(self.rows * (width // p), d).normal_(std=POSITION_STD)
        self.positions = exempt_from_weight_decay(nn.Parameter(places))
        self.time = nn.Sequential(nn.Linear(d, d), nn.SiLU(), nn.Linear(d, d))
        # the last class stands for any
        self.label = nn.Embedding(info.n_outputs + 1, d) if config.conditional else None
        self.blocks = nn.ModuleList(
            ConditionedBlock(d, build_mixer(config.mixer, d, config.mixer_options))
            for _ in range(config.n_layers)
        )
        self.norm = LayerNorm(d)
        self.head = nn.Linear(d, k * p**2)
        self.conv1 = nn.Conv2d(k + channels, k, 3, padding=1)
        self.conv2 = nn.Conv2d(k, channels, 3, padding=1)
        zero_linear_biases(self)
        rescale_residual_branches(self, config.n_layers)

    def forward(self, x: Images, t: Times, labels: Tensor | None = None) -> Images:
        """Predict v or the noise in x (b, c, y, x).

        Args:
            t: steps of noise in x, (b,) int64, 1..T.
            labels: classes (b,) int64; None means any.
        Raises:
            ShapeError: images of another size.
        """
        check_images("DiffusionModel", x, self.info.input_shape)
        condition = F.silu(self.condition(t, labels))
        p = self.config.patch
        y = self.embed(rearrange(x, "b c (y p) (x q) -> b (y x) (c p q)", p=p, q=p))
        y = y + self.positions
        for block in self.blocks:
            y = block(y, condition)
        y = rearrange(
            self.head(self.norm(y)), "b (y x) (k p q) -> b k (y p) (x q)", y=self.rows, p=p, q=p
        )
        y = F.silu(self.conv1(torch.cat([y, x.to(y.dtype)], dim=1)))
        predicted: Tensor = self.conv2(y)
        return predicted

    def condition(self, t: Times, labels: Tensor | None) -> OneStep:
        """What every block is told: the time and the class, (b, d)."""
        time: Tensor = self.time(sinusoids(t, self.config.d_model).to(self.positions.dtype))
        if self.label is None:
            return time
        if labels is None:
            labels = torch.full_like(t, self.info.n_outputs)
        elif self.training and self.config.label_dropout:
            dropped = torch.rand(labels.shape, device=labels.device) < self.config.label_dropout
            labels = labels.masked_fill(dropped, self.info.n_outputs)
        return time + self.label(labels)

    def scale(self, images: Images) -> Images:
        """Normalised images of the data set -> -1..1."""
        return 2 * self.range.to_unit(images) - 1

    def unscale(self, images: Images) -> Images:
        """-1..1 -> 0..1, what lies outside cut off."""
        return ((images + 1) / 2).clamp(0.0, 1.0)


def sinusoids(t: Times, d_model: int) -> OneStep:
    """Sines and cosines of t (b,) at frequencies from 1 to 1 / 10000, (b, d) float32.

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.5.
    """
    half = d_model // 2
    exponents = torch.arange(half, device=t.device, dtype=torch.float32) / half
    angles = t.float().unsqueeze(1) * torch.exp(-math.log(10_000) * exponents)
    return torch.cat([angles.sin(), angles.cos()], dim=1)
