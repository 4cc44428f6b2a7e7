from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from ssm_core import DataInfo
from ssm_core.errors import ConfigError
from ssm_vision import PatchClassifier, PatchClassifierConfig, delta_map, visualize
from ssm_vision.visualize import Examples, delta_figure, displayable, new_figure, save, spread


def model(channels: int = 1, mixer: str = "bimamba") -> PatchClassifier:
    config = PatchClassifierConfig(
        patch=2, d_model=8, n_layers=2, mixer=mixer, mixer_options={"d_state": 2}
    )
    return PatchClassifier(config, DataInfo((channels, 6, 8), 3, ("ant", "bee", "cat"))).eval()


@pytest.mark.parametrize("mixer", ["mamba", "bimamba"])
def test_delta_map_is_the_layers_step_size_at_every_pixel(mixer: str) -> None:
    classifier = model(mixer=mixer)
    images = torch.randn(3, 1, 6, 8)
    maps = delta_map(classifier, images)
    assert maps.shape == (2, 3, 6, 8)
    assert bool((maps > 0).all())
    first = classifier.tower.layers[0]
    delta = first.mixer.step_sizes(first.norm(classifier.tokens(images))).mean(dim=2)  # (b, l)
    for y in range(6):
        for x in range(8):
            token = (y // 2) * 4 + x // 2
            torch.testing.assert_close(maps[0, :, y, x], delta[:, token])


def test_delta_map_without_a_mamba() -> None:
    config = PatchClassifierConfig(patch=2, d_model=8, mixer="attention")
    classifier = PatchClassifier(config, DataInfo((1, 4, 4), 3))
    with pytest.raises(ConfigError, match="only Mamba layers have a Delta"):
        delta_map(classifier, torch.zeros(1, 1, 4, 4))


def texts(figure: object) -> list[str]:
    return [axes.get_title() for axes in figure.axes] + [  # type: ignore[attr-defined]
        axes.get_ylabel()
        for axes in figure.axes  # type: ignore[attr-defined]
    ]


@pytest.mark.parametrize("channels", [1, 3])
def test_delta_figure_shows_right_and_wrong(channels: int) -> None:
    classifier = model(channels)
    images = torch.randn(2, channels, 6, 8)
    guesses = classifier(images).argmax(1)
    labels = torch.stack([guesses[0], (guesses[1] + 1) % 3])
    figure = delta_figure(classifier, Examples(images, labels, "test images"), "my run")
    names = ("ant", "bee", "cat")
    wrong = f"{names[guesses[1]]} (is {names[labels[1]]})"
    assert {names[guesses[0]], wrong, "image", "$\\Delta$, layer 1", "$\\Delta$, layer 2"} <= {
        *texts(figure)
    }
    assert figure.get_suptitle() == "my run\ntest images"
    colours = [axes.title.get_color() for axes in figure.axes[:2]]
    assert colours == [visualize.RIGHT, visualize.WRONG]
    shown = [axes.images[0] for axes in figure.axes[2:4]]  # first layer, both images
    assert shown[0].get_clim() == shown[1].get_clim()


def test_delta_figure_without_labels() -> None:
    classifier = model()
    figure = delta_figure(classifier, Examples(torch.zeros(1, 1, 6, 8), None, "x.png"), "t")
    assert figure.axes[0].get_title() in ("ant", "bee", "cat")


def test_displayable_stretches_every_channel() -> None:
    images = torch.randn(3, 2, 4, 5) * 7 - 3
    shown = displayable(images)
    assert shown.amin(dim=(0, 2, 3)).tolist() == [0.0, 0.0]
    assert shown.amax(dim=(0, 2, 3)).tolist() == pytest.approx([1.0, 1.0])
    assert not displayable(torch.full((1, 1, 2, 2), 5.0)).any()


def test_save_makes_the_folder_and_a_png(tmp_path: Path) -> None:
    path = save(new_figure(1, 1), tmp_path / "a" / "b.png")
    assert path.read_bytes().startswith(b"\x89PNG")


class Pyramid(nn.Module):
    """Step sizes on grids of several sizes, and one answer per pixel."""

    info = DataInfo((1, 5, 8), 2)
    has_step_sizes = True

    def __init__(self, n_layers: int) -> None:
        super().__init__()
        self.n_layers = n_layers

    def step_sizes(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Layer i has the number i + 1, and its last column 10 times that."""
        maps = []
        for i in range(self.n_layers):
            grid = torch.full((len(images), 3 - i % 2, 4 // (1 + i % 2)), i + 1.0)
            grid[:, :, -1] *= 10
            maps.append(grid)
        return maps

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images


def test_delta_map_of_grids_that_differ() -> None:
    maps = delta_map(Pyramid(2), torch.zeros(3, 1, 5, 8))
    assert maps.shape == (2, 3, 5, 8)
    assert maps[0, 1, 4].tolist() == [1.0] * 6 + [10.0] * 2  # 4 columns over 8 pixels
    assert maps[1, 2, 0].tolist() == [2.0] * 4 + [20.0] * 4  # 2 columns


def test_delta_figure_of_a_deep_model_without_classes() -> None:
    figure = delta_figure(Pyramid(24), Examples(torch.zeros(2, 1, 5, 8), None, "x"), "t")
    rows = [axes.get_ylabel() for axes in figure.axes if "layer" in axes.get_ylabel()]
    assert rows == [f"$\\Delta$, layer {n}" for n in (1, 4, 7, 10, 14, 17, 20, 24)]
    assert {axes.get_title() for axes in figure.axes} == {""}


@pytest.mark.parametrize(
    ("count", "most", "expected"),
    [(0, 3, []), (3, 3, [0, 1, 2]), (4, 3, [0, 1, 3]), (100, 5, [0, 24, 49, 74, 99])],
)
def test_spread(count: int, most: int, expected: list[int]) -> None:
    assert spread(count, most) == expected
