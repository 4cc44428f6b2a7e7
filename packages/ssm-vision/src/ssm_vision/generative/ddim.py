"""Drawing images from a `DiffusionModel`.

Source: Song et al. 2021, arXiv:2010.02502, equation 12 (DDIM; with eta 1 and all steps it is DDPM);
Ho & Salimans 2022, arXiv:2207.12598 (guidance).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ssm_core.errors import ConfigError
from ssm_core.layers.checks import positive_int
from ssm_vision.generative.diffusion_model import DiffusionModel
from ssm_vision.generative.diffusion_process import DiffusionProcess, Times
from ssm_vision.models.image_model import Images

Denoiser = Callable[[Images, Times], Images]
"""What the network predicts for x_t at times (b,)."""


@dataclass(frozen=True)
class DdimOptions:
    """How images are drawn.

    Args:
        steps: calls of the network, at most the T steps of the process.
        eta: fresh noise in every step, 0 (none, DDIM) to 1 (as much as DDPM).
        guidance: w; the prediction is (1 + w) times that for the class less w times that for any.
    """

    steps: int = 50
    eta: float = 0.0
    guidance: float = 0.0

    def __post_init__(self) -> None:
        positive_int("ddim", "steps", self.steps)
        if not 0 <= self.eta <= 1:
            raise ConfigError(f"ddim: eta is {self.eta}, expected a number from 0 to 1")
        if not 0 <= self.guidance < torch.inf:
            raise ConfigError(f"ddim: guidance is {self.guidance}, expected a number from 0")


@torch.no_grad()
def draw_diffusion(
    model: DiffusionModel,
    labels: Tensor | int,
    generator: torch.Generator,
    options: DdimOptions | None = None,
) -> Images:
    """Draw images (b, c, y, x) of 0..1.

    Args:
        labels: classes (b,) int64, or how many images, b, of any class.
        generator: of the noise, on the model's device.
    Raises:
        ConfigError: more steps than the process has, or guidance without classes.

    Cost: `steps` calls of the model, twice as many with guidance.
    """
    options = options or DdimOptions()
    classes = labels if isinstance(labels, Tensor) else None
    batch = len(classes) if classes is not None else int(labels)
    if options.guidance and (classes is None or model.label is None):
        raise ConfigError(
            f"ddim: guidance is {options.guidance} without classes, expected 0, or a model with "
            "conditional true and labels"
        )

    def denoise(x: Images, t: Times) -> Images:
        predicted = model(x, t, classes).float()
        if not options.guidance:
            return predicted
        return torch.lerp(model(x, t).float(), predicted, 1 + options.guidance)

    shape = (batch, *model.info.input_shape)
    x = model.process.signal.new_empty(shape).normal_(generator=generator)
    return model.unscale(ddim(model.process, denoise, x, options, generator))


def ddim(
    process: DiffusionProcess,
    denoise: Denoiser,
    x: Images,
    options: DdimOptions,
    generator: torch.Generator | None = None,
) -> Images:
    """Go from noise x (b, c, y, x) to an image of -1..1 in `options.steps` steps.

    Every estimate of the image is cut to -1..1, as images are.

    Raises:
        ConfigError: more steps than the process has.
    """
    if options.steps > process.steps:
        raise ConfigError(
            f"ddim: steps is {options.steps}, expected at most the {process.steps} of the process"
        )
    way = torch.linspace(process.steps, 0, options.steps + 1).round().long().tolist()
    for now, after in itertools.pairwise(way):
        t = torch.full((len(x),), now, device=x.device)
        signal, spread = process.at(t)
        image = process.recover(x, t, denoise(x, t)).clamp(-1.0, 1.0)
        noise = (x - signal * image) / spread
        next_signal, next_spread = process.at(torch.full_like(t, after))
        fresh = options.eta * (next_spread / spread) * _kept(signal, next_signal)
        x = next_signal * image + (next_spread**2 - fresh**2).clamp(min=0).sqrt() * noise
        if options.eta and after:
            x = x + fresh * torch.empty_like(x).normal_(generator=generator)
    return x


def _kept(signal: Tensor, next_signal: Tensor) -> Tensor:
    """sqrt(1 - alpha_bar[t] / alpha_bar[t'])."""
    return (1 - (signal / next_signal) ** 2).clamp(min=0).sqrt()
