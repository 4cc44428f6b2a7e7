from __future__ import annotations

import pytest
import torch

from ssm_core import DataInfo
from ssm_core.errors import ConfigError
from ssm_kernels.errors import ShapeError
from ssm_vision.generative.pixel_model import PixelModel, PixelModelConfig
from ssm_vision.generative.pixel_sampling import draw_pixels

INFO = DataInfo((2, 4, 3), 5)


def small(conditional: bool = True) -> PixelModel:
    torch.manual_seed(0)
    config = PixelModelConfig(
        3, 8, 2, mixer_options={"d_state": 2}, conditional=conditional, mean=(0.5,), std=(0.5,)
    )
    return PixelModel(config, INFO).eval()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_cold_samples_are_the_likeliest_pixels_of_the_forward_pass() -> None:
    """What was drawn, read by the model at once, is at every place its own likeliest level."""
    model, labels = small(), torch.tensor([0, 3, 4])
    drawn = draw_pixels(model, labels, generator(), temperature=1e-6)
    assert drawn.shape == (3, 2, 4, 3)
    images = model.range.from_unit(drawn)
    with torch.no_grad():
        likeliest = model(images, labels).argmax(dim=2)
    assert torch.equal(model.quantise(images).flatten(1), likeliest)


def test_levels_are_drawn_as_often_as_the_model_says() -> None:
    model = small(conditional=False)
    with torch.no_grad():
        chances = model(torch.zeros(1, 2, 4, 3))[0, 0].softmax(0)  # the first pixel has no past
    drawn = draw_pixels(model, 4000, generator())
    first = model.quantise(model.range.from_unit(drawn))[:, 0, 0]
    counts = torch.bincount(first, minlength=3) / 4000
    torch.testing.assert_close(counts, chances, rtol=0, atol=0.03)


def test_given_rows_stay_and_go_on_as_in_one_piece() -> None:
    model, labels = small(), torch.tensor([1, 2])
    whole = draw_pixels(model, labels, generator(), temperature=1e-6)
    given = model.range.from_unit(whole)
    given[:, :, 2:] = 0.0
    torch.testing.assert_close(
        draw_pixels(model, labels, generator(1), 1e-6, given=given, rows=2), whole
    )
    torch.testing.assert_close(
        draw_pixels(model, labels, generator(1), given=model.range.from_unit(whole), rows=4), whole
    )


def test_same_seed_same_images() -> None:
    model, labels = small(), torch.tensor([1, 2, 3, 4])
    first = draw_pixels(model, labels, generator(5))
    assert torch.equal(first, draw_pixels(model, labels, generator(5)))
    assert not torch.equal(first, draw_pixels(model, labels, generator(6)))


def test_errors() -> None:
    model, labels = small(), torch.tensor([1])
    with pytest.raises(ShapeError, match="labels have shape None"):
        draw_pixels(model, 2, generator())
    with pytest.raises(ConfigError, match="temperature is 0"):
        draw_pixels(model, labels, generator(), temperature=0)
    with pytest.raises(ConfigError, match="rows is 2, expected 0 to 4, and 0 without"):
        draw_pixels(model, labels, generator(), rows=2)
    with pytest.raises(ConfigError, match="rows is 5"):
        draw_pixels(model, labels, generator(), given=torch.zeros(1, 2, 4, 3), rows=5)
    with pytest.raises(ShapeError, match="images have shape"):
        draw_pixels(model, labels, generator(), given=torch.zeros(1, 1, 4, 3), rows=1)
