from __future__ import annotations

from typing import Any

import pytest
import torch

from ssm_core import DataInfo
from ssm_core.errors import ConfigError
from ssm_kernels.errors import ShapeError
from ssm_vision.generative.pixel_model import PixelModel, PixelModelConfig

#: every axis has a length of its own
INFO = DataInfo((2, 4, 3), 5)


def small(**options: Any) -> PixelModel:
    torch.manual_seed(0)
    defaults = {"levels": 3, "d_model": 8, "mixer_options": {"d_state": 2}}
    config = PixelModelConfig(**defaults | {"mean": (0.5,), "std": (0.5,)} | options)
    return PixelModel(config, INFO).eval()


def images(batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, *INFO.input_shape) * 2 - 1


@pytest.mark.parametrize("mixer", ["mamba", "mamba2", "attention"])
@pytest.mark.parametrize("reach", [1, 2])
def test_a_pixel_changes_no_logit_before_or_at_its_place(mixer: str, reach: int) -> None:
    options = {"d_state": 2} if mixer == "mamba" else {}
    model = small(mixer=mixer, mixer_options=options, reach=reach, d_model=16)
    labels, before = torch.tensor([1, 4]), images()
    with torch.no_grad():
        logits = model(before, labels)
        for place in range(logits.shape[1]):
            y, x, c = place // 6, place % 6 // 2, place % 2  # the channels of a pixel are neighbours
            after = before.clone()
            after[:, c, y, x] = -after[:, c, y, x].sign()
            assert (model.quantise(after) != model.quantise(before)).flatten(1).any()
            changed = (model(after, labels) - logits).abs().amax(dim=(0, 2)) > 1e-6
            assert not changed[: place + 1].any(), place
            assert changed[place + 1 :].any() or place == logits.shape[1] - 1, place


def test_steps_give_the_logits_of_the_whole_image() -> None:
    model, given, labels = small(n_layers=2), images(), torch.tensor([0, 3])
    with torch.no_grad():
        expected = model(given, labels)
        canvas, state = model.padded(model.quantise(given)), model.tower.initial_state(2)
        for place in range(expected.shape[1]):
            y, x = divmod(place, model.columns)
            window = canvas[:, y : y + model.config.reach + 1, x : x + 2 * model.side + 1]
            y_t, state = model.tower.step(model.token(window, (y, x), labels), state)
            torch.testing.assert_close(model.head(y_t), expected[:, place], rtol=1e-4, atol=1e-5)


def test_a_step_sees_the_pixels_before_it_within_reach() -> None:
    """Against a loop over places and neighbours."""
    model = small(reach=1, conditional=False)
    levels = model.quantise(images(1))
    tokens = model.tokens(levels, None)[0]
    for place, token in enumerate(tokens):
        y, x = divmod(place, model.columns)
        one_hot = []
        for i in range(y - 1, y + 1):
            for j in range(x - model.side, x + model.side + 1):
                if (i, j) >= (y, x):
                    continue
                inside = i >= 0 and 0 <= j < model.columns
                one_hot += [inside and int(levels[0, i, j]) == level for level in range(3)]
        assert len(one_hot) == model.embed.in_features
        expected = model.embed(torch.tensor(one_hot).float()) + model.row[y] + model.column[x]
        torch.testing.assert_close(token, expected)


def test_levels_are_equal_parts_and_come_back_as_greys() -> None:
    model = PixelModel(
        PixelModelConfig(levels=4, mean=(0.0,), std=(1.0,), d_model=4), DataInfo((1, 1, 6), 2)
    )
    greys = torch.tensor([0.0, 0.24, 0.26, 0.51, 0.76, 1.0]).view(1, 1, 1, 6)
    levels = model.quantise(greys)
    assert levels.flatten().tolist() == [0, 0, 1, 2, 3, 3]
    thirds = torch.tensor([0, 0, 1, 2, 3, 3]) / 3
    torch.testing.assert_close(model.dequantise(levels).flatten(), thirds)


def test_channels_come_back_where_they_were() -> None:
    model = small(levels=256)
    given = images()
    back = model.dequantise(model.quantise(given))
    torch.testing.assert_close(back, model.range.to_unit(given), rtol=0, atol=1 / 128)


def test_classes_matter_only_where_wanted() -> None:
    given = images()
    model = small()
    assert not torch.allclose(model(given, torch.tensor([0, 0])), model(given, torch.tensor([1, 1])))
    with pytest.raises(ShapeError, match="labels have shape None"):
        model(given)
    model = small(conditional=False)
    assert model(given).shape == (2, 24, 3)
    with pytest.raises(ShapeError, match=r"expected None"):
        model(given, torch.tensor([0, 1]))


def test_errors() -> None:
    with pytest.raises(ConfigError, match="'bimamba', which reads the pixels to predict"):
        small(mixer="bimamba")
    for options, message in [
        ({"levels": 1}, "levels is 1"),
        ({"levels": 257}, "levels is 257, expected at most 256"),
        ({"reach": 0}, "reach is 0"),
        ({"mean": (0.1, 0.2, 0.3)}, "mean has 3 numbers"),
    ]:
        with pytest.raises(ConfigError, match=message):
            small(**options)
    with pytest.raises(ConfigError, match="pixel-model needs images"):
        PixelModel(PixelModelConfig(), DataInfo((64,), 10))
    with pytest.raises(ShapeError, match=r"expected \(b, c, y, x\) = \(b, 2, 4, 3\)"):
        small()(torch.zeros(1, 2, 3, 4), torch.tensor([0]))
