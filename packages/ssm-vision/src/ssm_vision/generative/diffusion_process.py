"""How images turn into noise, step by step, and what a network may predict to turn them back.

With a = alpha_bar[t], the share of the image's variance that is left after t of T steps,

    x_t = sqrt(a) x_0 + sqrt(1 - a) noise,    v = sqrt(a) noise - sqrt(1 - a) x_0

Sources: Ho et al. 2020, arXiv:2006.11239 (equation 4; linear schedule); Nichol & Dhariwal 2021,
arXiv:2102.09672 (equation 17, cosine schedule); Salimans & Ho 2022, arXiv:2202.00512 (v).
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from ssm_core.layers.checks import one_of, positive_int
from ssm_vision.models.image_model import Images

ScheduleName = Literal["cosine", "linear"]
Prediction = Literal["v", "epsilon"]
Times: TypeAlias = Annotated[Tensor, "b"]
"""Steps of noise 0..T, int64; 0 is the image itself."""

#: the offset s of the cosine schedule, and the largest beta of it
_OFFSET, _LARGEST_BETA = 0.008, 0.999
#: first and last beta of the linear schedule, for 1000 steps; fewer steps have larger ones
_FIRST, _LAST = 1e-4, 0.02


def alpha_bar(name: ScheduleName, steps: int) -> Tensor:
    """alpha_bar[0..T] (T + 1,) float64, from 1 downwards.

    Raises:
        ConfigError: another name, or no step.
    """
    positive_int("alpha_bar", "steps", steps)
    one_of("alpha_bar", "schedule", name, get_args(ScheduleName))
    if name == "cosine":
        t = torch.arange(steps + 1, dtype=torch.float64) / steps
        share = torch.cos((t + _OFFSET) / (1 + _OFFSET) * (math.pi / 2)).square()
        betas = (1 - share[1:] / share[:-1]).clamp(max=_LARGEST_BETA)
    else:
        scale = 1000 / steps
        betas = torch.linspace(_FIRST * scale, _LAST * scale, steps, dtype=torch.float64)
        betas = betas.clamp(max=_LARGEST_BETA)
    return torch.cat([betas.new_ones(1), (1 - betas).cumprod(0)])


class DiffusionProcess(nn.Module):
    """The forward process of T = `steps` steps, as tables; it has no parameters.

    Attributes:
        signal, noise: sqrt(alpha_bar) and sqrt(1 - alpha_bar), (T + 1,) float32, each rounded from
            float64: near t = 0 the one would lose its digits if it came from the other.
    """

    signal: Tensor
    noise: Tensor

    def __init__(self, schedule: ScheduleName, steps: int, prediction: Prediction) -> None:
        """Make the tables.

        Args:
            prediction: what the network predicts, the noise ("epsilon") or "v".
        Raises:
            ConfigError: an unknown name, or no step.
        """
        super().__init__()
        one_of("diffusion-model", "prediction", prediction, get_args(Prediction))
        self.steps, self.prediction = steps, prediction
        share = alpha_bar(schedule, steps)
        self.register_buffer("signal", share.sqrt().float(), persistent=False)
        self.register_buffer("noise", (1 - share).sqrt().float(), persistent=False)

    def diffuse(self, images: Images, t: Times, noise: Images) -> Images:
        """x_t of x_0 = `images` (b, c, y, x) with standard normal `noise` of that shape."""
        signal, spread = self.at(t)
        return signal * images + spread * noise

    def target(self, images: Images, t: Times, noise: Images) -> Images:
        """What the network should predict from `diffuse(images, t, noise)`."""
        if self.prediction == "epsilon":
            return noise
        signal, spread = self.at(t)
        return signal * noise - spread * images

    def recover(self, x: Images, t: Times, predicted: Images) -> Images:
        """x_0 from x_t and what the network predicted; t of 1 or more."""
        signal, spread = self.at(t)
        if self.prediction == "v":
            return signal * x - spread * predicted
        return (x - spread * predicted) / signal

    def at(self, t: Times) -> tuple[Tensor, Tensor]:
        """sqrt(alpha_bar) and sqrt(1 - alpha_bar) at t, (b, 1, 1, 1) each."""
        return self.signal[t].view(-1, 1, 1, 1), self.noise[t].view(-1, 1, 1, 1)
