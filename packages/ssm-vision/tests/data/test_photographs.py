from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ssm_core.errors import ConfigError
from ssm_vision.data.photographs import PhotographOptions, eval_transform, train_transform


def photograph(width: int = 60, height: int = 40) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def shown(image: torch.Tensor, options: PhotographOptions) -> torch.Tensor:
    """Back to 0..255."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (options.mean, options.std))
    return (image * std + mean) * 255


@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
def test_evaluation_resizes_and_crops_the_centre(name: Any) -> None:
    options = PhotographOptions(size=16, eval_crop=0.8, interpolation=name)
    result = shown(eval_transform(options)(photograph()), options)
    mode = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[name]
    resized = photograph().resize((30, 20), mode)  # the shorter side is 16 / 0.8
    expected = np.asarray(resized.crop((7, 2, 23, 18))).astype(np.float32)
    torch.testing.assert_close(result, torch.from_numpy(expected).movedim(2, 0), atol=0.01, rtol=0)


def test_random_interpolation_evaluates_with_bicubic() -> None:
    both = [
        eval_transform(PhotographOptions(size=16, interpolation=name))(photograph())  # type: ignore[arg-type]
        for name in ("random", "bicubic")
    ]
    assert torch.equal(*both)


def test_own_mean_and_std() -> None:
    plain = PhotographOptions(size=16, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    image = eval_transform(plain)(photograph())
    assert 0 <= float(image.min()) < float(image.max()) <= 1
    usual = PhotographOptions(size=16)
    torch.testing.assert_close(shown(eval_transform(usual)(photograph()), usual), image * 255)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"interpolation": "random"},
        {"randaugment": 9.0},
        {"colour_jitter": 0.4},
        {"erasing": 1.0},
        {"scale": (0.08, 1.0)},
    ],
)
def test_training_is_random_from_torchs_generator(options: dict[str, Any]) -> None:
    transform = train_transform(PhotographOptions(size=16, **options))
    torch.manual_seed(4)
    first = [transform(photograph()) for _ in range(6)]
    torch.manual_seed(4)
    second = [transform(photograph()) for _ in range(6)]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], first[1])
    assert all(image.shape == (3, 16, 16) and bool(image.isfinite().all()) for image in first)


def test_random_erasing_covers_a_rectangle_with_noise() -> None:
    flat = Image.new("RGB", (32, 32), (124, 116, 104))  # the mean: 0 after normalisation
    transform = train_transform(PhotographOptions(size=32, erasing=1.0))
    for _ in range(5):
        covered = (transform(flat).abs() > 0.02).any(0)
        places = covered.nonzero()
        sides = places.max(0).values - places.min(0).values + 1
        assert 0.02 * 1024 * 0.6 <= int(sides.prod()) <= 1024 / 3 * 1.2
        assert int(covered.sum()) >= 0.95 * int(sides.prod())


def test_without_augment_training_is_evaluation() -> None:
    options = PhotographOptions(size=16, augment=False, randaugment=9.0, erasing=1.0)
    assert torch.equal(
        train_transform(options)(photograph()), eval_transform(options)(photograph())
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, r"data\.size is 0, expected 1 or more"),
        ({"scale": (0.5, 0.1)}, r"data\.scale is \(0\.5, 0\.1\), expected two rising numbers"),
        ({"randaugment": -1.0}, r"data\.randaugment is -1\.0, expected null or a number"),
        ({"colour_jitter": 2.0}, r"data\.colour_jitter is 2\.0, expected a number from 0 to 1"),
        ({"erasing": 1.1}, r"data\.erasing is 1\.1, expected a number from 0 to 1"),
        ({"eval_crop": 0.0}, r"data\.eval_crop is 0\.0, expected above 0, at most 1"),
        ({"std": (0.0, 1.0, 1.0)}, r"data\.std is \(0\.0, 1\.0, 1\.0\), expected numbers above 0"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PhotographOptions(**options)
