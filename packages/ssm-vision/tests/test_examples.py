from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ssm_core import DataInfo
from ssm_core.errors import ConfigError, DataError
from ssm_vision import examples
from ssm_vision.data import mnist
from ssm_vision.data.in_memory import Normalisation
from ssm_vision.examples import choose, digits_as_mnist, from_file, pool, telling

PLAIN = Normalisation((0.0,), (1.0,))


@pytest.mark.parametrize(
    ("labels", "predictions", "count", "expected"),
    [
        ([0, 0, 1, 1, 2], [0, 0, 1, 1, 2], 3, [0, 2, 4]),  # one per class
        ([0, 0, 1, 1, 2], [0, 0, 1, 1, 2], 5, [0, 2, 4, 1, 3]),  # then the next of each
        ([0, 1, 2, 0, 1], [0, 1, 2, 1, 0], 4, [0, 1, 2, 3]),  # a quarter are mistakes
        ([0, 1], [1, 0], 4, [0, 1]),  # nothing but mistakes
        ([0, 1], [0, 1], 8, [0, 1]),  # fewer than asked
        ([], [], 3, []),
    ],
)
def test_choose(labels: list[int], predictions: list[int], count: int, expected: list[int]) -> None:
    long = torch.int64
    chosen = choose(torch.tensor(labels, dtype=long), torch.tensor(predictions, dtype=long), count)
    assert chosen == expected


def pairs(count: int, dtype: torch.dtype = torch.float32) -> list[tuple[torch.Tensor, int]]:
    """Images whose pixels are their number, of the class number modulo 3."""
    return [(torch.full((1, 4, 6), i).to(dtype), i % 3) for i in range(count)]


def test_pool_is_spread_over_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    images, targets = pool(pairs(1000))  # type: ignore[arg-type]
    assert images.shape == (256, 1, 4, 6)
    assert (images[0, 0, 0, 0], images[-1, 0, 0, 0]) == (0, 999)
    assert targets == [int(n) % 3 for n in images[:, 0, 0, 0]]
    monkeypatch.setattr(examples, "MOST_PIXELS", 24 * 20)
    assert len(pool(pairs(1000))[0]) == 20  # type: ignore[arg-type]
    assert len(pool(pairs(5))[0]) == 5  # type: ignore[arg-type]


def test_bytes_become_fractions() -> None:
    images, _ = pool(pairs(3, torch.uint8))  # type: ignore[arg-type]
    torch.testing.assert_close(images[:, 0, 0, 0], torch.tensor([0, 1, 2]) / 255)


def test_telling_examples_of_a_classifier_are_of_every_class() -> None:
    images, targets = pool(pairs(12))  # type: ignore[arg-type]

    def perfect(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(x[:, 0, 0, 0].long() % 3).float()

    shown = telling(perfect, images, targets, "here", 3)
    assert shown.labels is not None
    assert shown.labels.tolist() == [0, 1, 2]
    assert shown.images[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert shown.source == "here"


def test_telling_examples_of_any_other_model_are_spread() -> None:
    images, targets = pool(pairs(9))  # type: ignore[arg-type]
    shown = telling(lambda x: x, images, targets, "here", 3)
    assert shown.labels is None
    assert shown.images[:, 0, 0, 0].tolist() == [0, 4, 8]
    masks = [torch.zeros(4, 6) for _ in images]
    assert telling(lambda x: x[:, 0, 0], images, masks, "here", 3).labels is None


def test_digits_look_like_mnist() -> None:
    shown = digits_as_mnist(10)
    assert shown.images.shape == (10, 1, 28, 28)
    assert shown.labels is not None
    assert sorted(shown.labels.tolist()) == list(range(10))
    pixels = shown.images * 0.3081 + 0.1307
    assert float(pixels.min()) == pytest.approx(0.0, abs=1e-5)
    assert float(pixels.max()) == pytest.approx(1.0, abs=1e-5)
    assert not (pixels[:, :, :4] > 1e-5).any()  # the frame is black


def write(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def test_grey_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", np.full((5, 9), 51))
    shown = from_file(path, mnist.INFO, mnist.NORMALISATION, invert=False)
    expected = (51 / 255 - 0.1307) / 0.3081
    torch.testing.assert_close(shown.images, torch.full((1, 1, 28, 28), expected))
    assert (shown.labels, shown.source) == (None, "a.png")


def test_file_for_data_of_another_scale(tmp_path: Path) -> None:
    """Digits are stored as 0..16; white must be white all the same."""
    path = write(tmp_path / "a.png", np.full((8, 8), 255))
    shown = from_file(path, DataInfo((1, 8, 8), 10), Normalisation((0.0,), (1.0,), 16.0), False)
    torch.testing.assert_close(shown.images, torch.ones(1, 1, 8, 8))


def test_colour_file_keeps_its_axes(tmp_path: Path) -> None:
    pixels = np.zeros((6, 8, 3))
    pixels[0, :, 2] = 255  # the first row is blue
    path = write(tmp_path / "a.png", pixels)
    shown = from_file(path, DataInfo((3, 6, 8), 2), Normalisation((0.0,) * 3, (1.0,) * 3), False)
    assert shown.images.shape == (1, 3, 6, 8)
    assert shown.images[0, 2, 0].tolist() == [1.0] * 8
    assert float(shown.images.sum()) == 8.0


def test_invert(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", np.zeros((4, 4)))
    shown = from_file(path, DataInfo((1, 4, 4), 2), PLAIN, invert=True)
    torch.testing.assert_close(shown.images, torch.ones(1, 1, 4, 4))


def test_bad_files(tmp_path: Path) -> None:
    info = DataInfo((1, 4, 4), 2)
    with pytest.raises(DataError, match="no such image file and no such data set"):
        from_file(tmp_path / "absent.png", info, PLAIN, False)
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(DataError, match=r"text\.png: damaged or not an image"):
        from_file(tmp_path / "text.png", info, PLAIN, False)
    with pytest.raises(ConfigError, match="the model reads 4 channels, a file gives 1 or 3"):
        from_file(write(tmp_path / "a.png", np.zeros((4, 4))), DataInfo((4, 4, 4), 2), PLAIN, False)
