"""What the base class does for every model, on the smallest one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from toy_model import Toy, ToyConfig

from ssm_core import DataInfo
from ssm_core.errors import ConfigError
from ssm_kernels.errors import DTypeError, ShapeError


@pytest.fixture
def model() -> Toy:
    return Toy(ToyConfig(), DataInfo((3, 16, 24), 5))


def test_what_the_data_say(model: Toy) -> None:
    assert (model.in_chans, model.image_size, model.num_classes) == (3, (16, 24), 5)
    with pytest.raises(ConfigError, match=r"Toy needs images \(c, y, x\), this data set gives"):
        Toy(ToyConfig(), DataInfo((28,), 5))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, [0, 1]),
        (1, [1]),
        (2, [0, 1]),
        ([0], [0]),
        ((-1,), [1]),
        ([1, -2], [1, 0]),
        ([], []),
    ],
)
def test_numbers_of_stages(model: Toy, given: object, expected: list[int]) -> None:
    assert model.stage_indices(given) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [0, 3, -1, [2], [-3], (0, 5)])
def test_stages_that_there_are_not(model: Toy, given: object) -> None:
    with pytest.raises(ConfigError, match=r"Toy: stages .*, expected numbers from -2 to 1"):
        model.stage_indices(given)  # type: ignore[arg-type]


def test_checked_images(model: Toy) -> None:
    images = torch.rand(2, 3, 16, 24)
    assert model.checked(images) is images
    assert model.checked(images.double()).dtype is torch.float64
    grey = model.checked(torch.full((1, 3, 16, 24), 51, dtype=torch.uint8))
    torch.testing.assert_close(grey, torch.full((1, 3, 16, 24), 0.2))
    half = Toy(ToyConfig(), DataInfo((3, 16, 24), 5)).half()
    assert half.checked(torch.zeros(1, 3, 16, 24, dtype=torch.uint8)).dtype is torch.float16


def test_images_that_cannot_be_used(model: Toy) -> None:
    for shape in [(3, 16, 24), (2, 1, 16, 24), (2, 16, 24, 3), (2, 3, 1, 16, 24)]:
        with pytest.raises(ShapeError, match=r"images have shape .* expected .* c = 3 channels"):
            model.checked(torch.zeros(shape))
    with pytest.raises(ShapeError, match="7 x 24 pixels, expected at least 8 x 8"):
        model.checked(torch.zeros(1, 3, 7, 24), least=8)
    for dtype in (torch.int64, torch.bool, torch.complex64, torch.int8):
        with pytest.raises(DTypeError, match=f"images are {dtype}, expected floating point"):
            model.checked(torch.zeros(1, 3, 16, 24, dtype=dtype))


def test_blocks_forget_their_inside_only_while_training(model: Toy) -> None:
    kept: list[bool] = []

    def block(x: Tensor) -> Tensor:
        kept.append(torch.is_grad_enabled())
        return (x * 2).exp()

    x = torch.ones(3, requires_grad=True)
    model.train().call(block, x).sum().backward()
    assert kept == [True]  # once: nothing is computed again
    model.set_grad_checkpointing()
    model.call(block, x).sum().backward()
    assert len(kept) == 3  # forward, and again before its backward
    torch.testing.assert_close(x.grad, torch.full((3,), 2 * 2 * float(torch.tensor(2.0).exp())))
    model.eval().call(block, x).sum().backward()
    assert len(kept) == 4
    with torch.no_grad():
        model.train().call(block, x)
    assert len(kept) == 5


def test_stages_in_the_words_of_timm(model: Toy) -> None:
    assert model.feature_info == [
        {"num_chs": 8, "reduction": 4, "module": "levels.0"},
        {"num_chs": 16, "reduction": 8, "module": "levels.1"},
    ]
    images = torch.randn(2, 3, 16, 24)
    features, maps = model.forward_intermediates(images, indices=[-1, 0])
    assert [tuple(m.shape) for m in maps] == [(2, 16, 2, 3), (2, 8, 4, 6)]
    torch.testing.assert_close(features, model.forward_features(images))
    for words in ({"norm": True}, {"output_fmt": "NLC"}):
        with pytest.raises(ConfigError, match="expected False and 'NCHW'"):
            model.forward_intermediates(images, **words)  # type: ignore[arg-type]


def test_layers_from_the_image_to_the_head(model: Toy) -> None:
    layer = model.group_matcher()
    assert layer("pos_embed") == layer("patch_embed.weight") == 0
    assert layer("levels.0.blocks.0.weight") == layer("levels.0.downsample.bias") == 1
    assert [layer(f"levels.1.blocks.{j}.weight") for j in (0, 1)] == [2, 3]
    assert layer("levels.1.downsample.weight") == layer("norm.weight") == 3
    assert layer("head.weight") == layer("head.bias") == 4
    stage = model.group_matcher(coarse=True)
    assert [stage(f"levels.1.blocks.{j}.weight") for j in (0, 1)] == [2, 2]
    assert (stage("patch_embed.weight"), stage("norm.bias"), stage("head.weight")) == (0, 2, 3)


def test_layers_of_a_model_without_stages() -> None:
    class Flat(Toy):
        def __init__(self) -> None:
            super().__init__(ToyConfig(), DataInfo((3, 16, 16), 5))
            del self.levels
            self.layers = nn.ModuleList(nn.Sequential(nn.Linear(2, 2)) for _ in range(12))

    layer = Flat().group_matcher()
    assert [layer(f"layers.{i}.0.weight") for i in range(12)] == list(range(1, 13))
    assert layer("head.weight") == 13


def test_marked_parameters_are_not_decayed(model: Toy) -> None:
    assert model.no_weight_decay() == {"pos_embed"}
