from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from ssm_core import DataInfo
from ssm_vision import PatchClassifier, PatchClassifierConfig
from ssm_vision.models.image_model import ImageModel, Stage
from ssm_vision.receptive_field import (
    feature_maps_of,
    receptive_field,
    receptive_figure,
    share_for,
)


@pytest.mark.parametrize(("kernel", "dilation"), [((3, 3), 1), ((1, 5), 1), ((3, 3), 2)])
def test_a_convolution_has_exactly_its_kernels_support(
    kernel: tuple[int, int], dilation: int
) -> None:
    padding = tuple(dilation * (k // 2) for k in kernel)
    conv = nn.Conv2d(2, 4, kernel, padding=padding, dilation=dilation)  # type: ignore[arg-type]
    field = receptive_field(conv, torch.randn(3, 2, 11, 14))
    expected = torch.zeros(11, 14, dtype=torch.bool)
    for dy in range(kernel[0]):
        for dx in range(kernel[1]):
            expected[5 + dilation * (dy - kernel[0] // 2), 7 + dilation * (dx - kernel[1] // 2)] = (
                True
            )
    assert torch.equal(field > 0, expected)


def test_a_stride_moves_the_centre() -> None:
    conv = nn.Conv2d(1, 1, 4, stride=4)
    field = receptive_field(conv, torch.randn(1, 1, 12, 20))
    rows, columns = (field > 0).nonzero(as_tuple=True)
    assert (int(rows.min()), int(rows.max())) == (4, 7)  # the second of 3 rows of the map
    assert (int(columns.min()), int(columns.max())) == (8, 11)  # the third of 5


def test_values_are_the_root_mean_square_of_the_jacobian() -> None:
    """Against one backward pass per feature; the estimate is over many images of a linear map."""
    torch.manual_seed(3)
    conv = nn.Conv2d(2, 8, 3, padding=1).double()
    images = torch.randn(4000, 2, 5, 5, dtype=torch.float64)
    leaf = images[:1].clone().requires_grad_()
    centre = conv(leaf)[0, :, 2, 2]
    square = sum(torch.autograd.grad(f, leaf, retain_graph=True)[0].square() for f in centre)
    assert isinstance(square, Tensor)
    expected = square.mean(dim=(0, 1)).sqrt().float()
    torch.testing.assert_close(receptive_field(conv, images), expected, rtol=0.05, atol=0)


def test_one_feature_has_no_estimate() -> None:
    conv = nn.Conv2d(1, 1, 3, padding=1)
    field = receptive_field(conv, torch.randn(2, 1, 3, 3))
    torch.testing.assert_close(field, conv.weight[0, 0].detach().abs())


def test_normalised_features_do_not_cancel() -> None:
    """The channels of a layer norm's output sum to nothing, and so does their gradient."""

    def features(images: Tensor) -> Tensor:
        stacked = torch.cat([images, images.square(), images.sin()], dim=1)
        return nn.functional.layer_norm(stacked.movedim(1, 3), (3,)).movedim(3, 1)

    field = receptive_field(features, torch.randn(4, 1, 3, 3))
    assert field[1, 1] > 0.01
    assert (field > 0).sum() == 1


def test_the_seed_decides_and_gradients_are_left_alone() -> None:
    conv = nn.Conv2d(1, 8, 3, padding=1)
    images = torch.randn(2, 1, 5, 5)
    with torch.no_grad():
        fields = [receptive_field(conv, images, seed) for seed in (0, 0, 1)]
    assert torch.equal(fields[0], fields[1])
    assert not torch.equal(fields[0], fields[2])
    assert conv.weight.grad is None
    assert not images.requires_grad


@pytest.mark.parametrize(
    ("values", "part", "share"),
    [
        ([1.0] * 10, 0.5, 0.5), ([1.0] * 10, 1.0, 1.0), ([8.0, 1.0, 1.0, 0.0], 0.5, 0.25),
        ([8.0, 1.0, 1.0, 0.0], 0.9, 0.5), ([8.0, 1.0, 1.0, 0.0], 0.95, 0.75), ([0.0] * 4, 0.5, 0.0),
    ],
)  # fmt: skip
def test_share_of_the_pixels(values: list[float], part: float, share: float) -> None:
    assert share_for(torch.tensor(values)[None], part) == share


def patch_classifier(mixer: str, n_layers: int = 2) -> PatchClassifier:
    config = PatchClassifierConfig(patch=2, d_model=8, n_layers=n_layers, mixer=mixer)
    return PatchClassifier(config, DataInfo((1, 6, 8), 3)).eval()


def test_a_causal_patch_classifier_looks_back_only() -> None:
    maps = feature_maps_of(patch_classifier("mamba"))
    assert [m.name for m in maps] == ["block 1", "block 2"]
    seen = receptive_field(maps[-1].features, torch.randn(4, 1, 6, 8)) > 0
    tokens = seen.unfold(0, 2, 2).unfold(1, 2, 2).flatten(2).all(dim=2).flatten()
    centre = 1 * 4 + 2  # row 3 // 2, column 4 // 2 of 3 x 4 patches
    assert tokens.tolist() == [i <= centre for i in range(12)]


def test_a_bidirectional_one_looks_everywhere() -> None:
    maps = feature_maps_of(patch_classifier("bimamba", n_layers=9))
    assert [m.name for m in maps] == ["block 1", "block 3", "block 6", "block 9"]
    assert (receptive_field(maps[-1].features, torch.randn(2, 1, 6, 8)) > 0).all()


class TwoStages(ImageModel):
    """Two convolutions as stages."""

    hierarchical = True
    num_features = 4

    def __init__(self, info: DataInfo) -> None:
        super().__init__(info)
        self.first, self.second = nn.Conv2d(1, 4, 2, stride=2), nn.Conv2d(4, 4, 3, padding=1)

    @property
    def stages(self) -> tuple[Stage, ...]:
        return (Stage(4, 2, "first"), Stage(4, 2, "second"))

    def feature_maps(self, images: Tensor, indices: Sequence[int]) -> list[Tensor]:
        maps = [self.first(images)]
        maps.append(self.second(maps[0]))
        return [maps[i] for i in indices]

    def forward_features(self, images: Tensor) -> Tensor:
        return self.feature_maps(images, [1])[0]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        return x.mean(dim=(2, 3))

    def get_classifier(self) -> nn.Module:
        return nn.Identity()

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        raise NotImplementedError


def test_any_image_model_shows_its_stages() -> None:
    maps = feature_maps_of(TwoStages(DataInfo((1, 12, 12), 4)))
    assert [m.name for m in maps] == ["first", "second"]
    images = torch.randn(2, 1, 12, 12)
    pixels = [int((receptive_field(m.features, images) > 0).sum()) for m in maps]
    assert pixels == [4, 36]


def test_other_models_have_none() -> None:
    assert feature_maps_of(nn.Linear(2, 2)) == []


def test_figure() -> None:
    field = torch.zeros(4, 5)
    field[1, 2], field[1, 3] = 2.0, 1e-9
    figure = receptive_figure([("first", field), ("nothing", torch.zeros(4, 5))], "my run")
    panels = figure.axes[:2]
    assert [axes.get_title() for axes in panels] == ["first", "nothing"]
    assert panels[0].get_xlabel() == "50 % in 5.0 % of the pixels\n95 % in 5.0 %"
    shown = panels[0].images[0].get_array()
    assert int((~shown.mask).sum()) == 2  # outside is grey, small is not
    assert float(shown[1, 2]) == 1.0
    assert panels[1].images[0].get_array().mask.all()
