from __future__ import annotations

import math

import pytest
import torch

from ssm_core.errors import ConfigError
from ssm_vision.generative.diffusion_process import DiffusionProcess, alpha_bar


def test_cosine_schedule_is_that_of_the_paper() -> None:
    """Equation 17 step by step: betas from f(t), cut at 0.999, multiplied up."""
    steps = 50

    def f(t: int) -> float:
        return math.cos((t / steps + 0.008) / 1.008 * math.pi / 2) ** 2

    share, expected = 1.0, [1.0]
    for t in range(1, steps + 1):
        share *= 1 - min(1 - f(t) / f(t - 1), 0.999)
        expected.append(share)
    actual = alpha_bar("cosine", steps)
    assert actual.dtype is torch.float64
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize(("steps", "first", "last"), [(1000, 1e-4, 0.02), (100, 1e-3, 0.2)])
def test_linear_schedule_is_that_of_the_paper(steps: int, first: float, last: float) -> None:
    share, expected = 1.0, [1.0]
    for t in range(steps):
        share *= 1 - (first + (last - first) * t / (steps - 1))
        expected.append(share)
    expected_shares = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(alpha_bar("linear", steps), expected_shares)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
@pytest.mark.parametrize("steps", [1, 20, 1000])
def test_from_image_to_noise(schedule: str, steps: int) -> None:
    process = DiffusionProcess(schedule, steps, "v")  # type: ignore[arg-type]
    assert (process.signal[0], process.noise[0]) == (1, 0)
    torch.testing.assert_close(process.signal**2 + process.noise**2, torch.ones(steps + 1))
    assert (process.signal.diff() < 0).all()
    if steps >= 20:
        assert process.signal[-1] < 0.1


@pytest.mark.parametrize("prediction", ["v", "epsilon"])
def test_what_is_predicted_gives_the_image_back(prediction: str) -> None:
    process = DiffusionProcess("cosine", 10, prediction).double()  # type: ignore[arg-type]
    images = torch.rand(9, 1, 2, 3, dtype=torch.float64)
    noise, t = torch.randn_like(images), torch.arange(1, 10)
    x = process.diffuse(images, t, noise)
    for i in range(9):  # one by one, from alpha_bar
        a = float(alpha_bar("cosine", 10)[i + 1])
        expected = math.sqrt(a) * images[i] + math.sqrt(1 - a) * noise[i]
        torch.testing.assert_close(x[i], expected, rtol=1e-6, atol=1e-6)
    recovered = process.recover(x, t, process.target(images, t, noise))
    torch.testing.assert_close(recovered, images, rtol=1e-5, atol=1e-5)


def test_errors() -> None:
    with pytest.raises(ConfigError, match="prediction is 'x'"):
        DiffusionProcess("cosine", 10, "x")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="schedule is 'sine'"):
        DiffusionProcess("sine", 10, "v")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="steps is 0"):
        DiffusionProcess("cosine", 0, "v")
