from __future__ import annotations

import math

import pytest
import torch

from ssm_core import DataInfo
from ssm_core.errors import ConfigError
from ssm_vision.generative.ddim import DdimOptions, ddim, draw_diffusion
from ssm_vision.generative.diffusion_model import DiffusionModel, DiffusionModelConfig
from ssm_vision.generative.diffusion_process import DiffusionProcess, Times, alpha_bar
from ssm_vision.models.image_model import Images

INFO = DataInfo((1, 4, 4), 5)


class Perfect:
    """Knows the image, and predicts what takes x_t to it."""

    def __init__(self, process: DiffusionProcess, image: Images) -> None:
        self.process, self.image = process, image
        self.times: list[int] = []

    def __call__(self, x: Images, t: Times) -> Images:
        self.times.append(int(t[0]))
        signal, spread = self.process.at(t)
        return self.process.target(self.image, t, (x - signal * self.image) / spread)


@pytest.mark.parametrize("prediction", ["v", "epsilon"])
@pytest.mark.parametrize("steps", [1, 7, 100])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_a_perfect_denoiser_recovers_the_image(prediction: str, steps: int, eta: float) -> None:
    process = DiffusionProcess("cosine", 100, prediction).double()  # type: ignore[arg-type]
    image = torch.rand(3, 1, 2, 5, dtype=torch.float64) * 2 - 1
    denoise = Perfect(process, image)
    y = ddim(process, denoise, torch.randn_like(image), DdimOptions(steps, eta))
    torch.testing.assert_close(y, image, rtol=1e-6, atol=1e-6)
    assert len(denoise.times) == steps
    assert denoise.times[0] == 100
    assert denoise.times == sorted(set(denoise.times), reverse=True)


def test_one_step_is_that_of_the_paper() -> None:
    """Equation 12 of arXiv:2010.02502 with eta 0, against numbers computed one by one."""
    process = DiffusionProcess("linear", 2, "epsilon").double()
    x = torch.full((1, 1, 1, 1), 0.3, dtype=torch.float64)
    noises = {2: 0.2, 1: -0.1}
    expected = 0.3
    share = [float(a) for a in alpha_bar("linear", 2)]
    for t in (2, 1):
        image = (expected - math.sqrt(1 - share[t]) * noises[t]) / math.sqrt(share[t])
        image = max(-1.0, min(1.0, image))
        noise = (expected - math.sqrt(share[t]) * image) / math.sqrt(1 - share[t])
        expected = math.sqrt(share[t - 1]) * image + math.sqrt(1 - share[t - 1]) * noise
    y = ddim(process, lambda x, t: x * 0 + noises[int(t)], x, DdimOptions(2))
    assert y.item() == pytest.approx(expected, rel=1e-5)


def test_fresh_noise_keeps_the_variance() -> None:
    """Of normal data, whose best denoiser is known, samples have the variance of the data."""
    process = DiffusionProcess("cosine", 500, "v").double()
    generator = torch.Generator().manual_seed(0)
    x = torch.empty(4000, 1, 1, 1, dtype=torch.float64).normal_(generator=generator)

    def denoise(x: Images, t: Times) -> Images:
        signal, spread = process.at(t)
        # E[x_0 | x_t] of data that stay within -1..1
        image = signal * 0.01 / (0.01 * signal**2 + spread**2) * x
        return process.target(image, t, (x - signal * image) / spread)

    for eta in (0.0, 1.0):
        y = ddim(process, denoise, x, DdimOptions(500, eta), generator)
        assert y.std().item() == pytest.approx(0.1, rel=0.06)


def small(conditional: bool = True) -> DiffusionModel:
    torch.manual_seed(0)
    config = DiffusionModelConfig(
        2, 8, 1, mixer_options={"d_state": 2}, refine=4, conditional=conditional, steps=10
    )
    model = DiffusionModel(config, INFO).eval()
    for block in model.blocks:  # starts at 0, deaf to classes
        torch.nn.init.normal_(block.modulate.weight, std=0.3)
    return model


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_drawing_with_a_model() -> None:
    model, labels = small(), torch.tensor([0, 1, 4])
    options = DdimOptions(5, guidance=0.5)
    y = draw_diffusion(model, labels, generator(), options)
    assert y.shape == (3, 1, 4, 4)
    assert y.min() >= 0
    assert y.max() <= 1
    assert torch.equal(y, draw_diffusion(model, labels, generator(), options))
    assert not torch.equal(y, draw_diffusion(model, labels, generator(1), options))
    assert not torch.equal(y, draw_diffusion(model, labels, generator(), DdimOptions(5)))
    assert draw_diffusion(small(False), 2, generator(), DdimOptions(5)).shape == (2, 1, 4, 4)


def test_errors() -> None:
    for options, message in [
        ({"steps": 0}, "steps is 0"),
        ({"eta": 1.5}, "eta is 1.5"),
        ({"guidance": -1.0}, "guidance is -1.0"),
    ]:
        with pytest.raises(ConfigError, match=message):
            DdimOptions(**options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="steps is 50, expected at most the 10"):
        draw_diffusion(small(), 2, generator())
    with pytest.raises(ConfigError, match=r"guidance is 1\.0 without classes"):
        draw_diffusion(small(), 2, generator(), DdimOptions(5, guidance=1.0))
