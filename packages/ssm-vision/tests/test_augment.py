from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from ssm_vision.augment import OPERATIONS, RandAugment

GREY = [128.0, 128.0, 128.0]


def tensor(height: int = 12, width: int = 17) -> torch.Tensor:
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8)


def pillow(pixels: torch.Tensor) -> Image.Image:
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("level", [0.0, 0.9, 1.0])
def test_operations_keep_kind_and_size(name: str, level: float) -> None:
    pixels = tensor()
    changed = OPERATIONS[name](pixels, level, GREY)
    assert (changed.shape, changed.dtype) == (pixels.shape, torch.uint8)
    image = OPERATIONS[name](pillow(pixels), level, GREY)
    assert (image.size, image.mode) == ((17, 12), "RGB")
    one = OPERATIONS[name](pixels[:1], level, GREY[:1])
    assert one.shape == (1, 12, 17)


@pytest.mark.parametrize(
    "name", ["rotate", "shear-x", "shear-y", "translate-x", "translate-y", "colour", "contrast"]
)
def test_level_zero_changes_nothing(name: str) -> None:
    pixels = tensor()
    difference = OPERATIONS[name](pixels, 0.0, GREY).int() - pixels.int()
    assert int(difference.abs().max()) <= 1  # enhancing rounds


def test_translate_moves_by_the_share_of_its_side() -> None:
    pixels = tensor(height=10, width=20)
    moved = OPERATIONS["translate-x"](pixels, 1.0, GREY)  # 0.45 * 20 = 9 pixels either way
    left, right = torch.equal(moved[..., :11], pixels[..., 9:]), None
    if not left:
        right = torch.equal(moved[..., 9:], pixels[..., :11])
    assert left or right
    assert int((moved == 128).all(dim=0).sum()) >= 90


def test_solarize_add_brightens_dark_pixels_only() -> None:
    pixels = torch.tensor([0, 100, 127, 128, 255], dtype=torch.uint8).view(1, 1, 5).expand(3, 1, 5)
    brighter = OPERATIONS["solarize-add"](pixels, 1.0, GREY)
    assert brighter[0, 0].tolist() == [110, 210, 237, 128, 255]
    again = np.asarray(OPERATIONS["solarize-add"](pillow(pixels), 1.0, GREY))
    assert again[0, :, 0].tolist() == [110, 210, 237, 128, 255]


def test_posterize_and_solarize_grow_with_the_level() -> None:
    ramp = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)
    colours = [len(OPERATIONS["posterize"](ramp, lv, GREY[:1]).unique()) for lv in (0.1, 0.5, 0.9)]
    assert colours == sorted(colours, reverse=True)
    inverted = [
        int((OPERATIONS["solarize"](ramp, lv, GREY[:1]) != ramp).sum()) for lv in (0.1, 0.5, 0.9)
    ]
    assert inverted == sorted(inverted)


def test_every_second_operation_is_carried_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two places per image, each with probability 1/2: one operation per image on average."""
    seen: list[float] = []

    def record(image: torch.Tensor, level: float, fill: list[float]) -> torch.Tensor:
        seen.append(level)
        return image

    for name in OPERATIONS:
        monkeypatch.setitem(OPERATIONS, name, record)
    RandAugment(9, (0.0,)).each(torch.zeros(2000, 1, 1, 1, dtype=torch.uint8))
    assert len(seen) == pytest.approx(2000, rel=0.06)
    levels = torch.tensor(seen)
    assert float(levels.max()) <= 1.0
    assert float(levels.mean()) == pytest.approx(0.9, abs=0.01)
    assert float(levels.std()) == pytest.approx(0.05, abs=0.01)


def test_numbers_come_from_torchs_generator() -> None:
    images, augment = torch.stack([tensor() for _ in range(8)]), RandAugment(9, (124, 116, 104))
    torch.manual_seed(3)
    first = augment.each(images)
    torch.manual_seed(3)
    assert torch.equal(augment.each(images), first)
    assert not torch.equal(first, images)
    assert augment.each(images[:0]).shape == (0, 3, 12, 17)


TIMM_NAMES = {
    "Rotate": "rotate",
    "PosterizeIncreasing": "posterize",
    "SolarizeIncreasing": "solarize",
    "SolarizeAdd": "solarize-add",
    "ColorIncreasing": "colour",
    "ContrastIncreasing": "contrast",
    "BrightnessIncreasing": "brightness",
    "SharpnessIncreasing": "sharpness",
    "ShearX": "shear-x",
    "ShearY": "shear-y",
    "TranslateXRel": "translate-x",
    "TranslateYRel": "translate-y",
    "AutoContrast": "auto-contrast",
    "Equalize": "equalize",
    "Invert": "invert",
}


@pytest.mark.parametrize("level", [3.0, 8.6])
def test_operations_are_those_of_timm(level: float, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = pytest.importorskip("timm.data.auto_augment", reason="timm is not installed")
    from ssm_vision import augment

    assert set(TIMM_NAMES) == set(theirs._RAND_INCREASING_TRANSFORMS)
    assert set(TIMM_NAMES.values()) == set(OPERATIONS)
    monkeypatch.setattr(theirs, "_randomly_negate", lambda value: value)
    small = np.random.default_rng(0).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize((40, 30), Image.Resampling.BICUBIC)
    keywords = {"fillcolor": (128, 128, 128), "resample": Image.Resampling.BILINEAR}
    for their_name, our_name in TIMM_NAMES.items():
        # a positive translation of theirs moves the image to the left, of ours to the right
        sign = -1.0 if "Translate" in their_name else 1.0
        monkeypatch.setattr(augment, "_signed", lambda amount, sign=sign: sign * amount)
        strength = theirs.LEVEL_TO_ARG[their_name]
        amount = strength(level, {"translate_pct": 0.45}) if strength is not None else ()
        expected = np.asarray(theirs.NAME_TO_OP[their_name](image, *amount, **keywords))
        found = np.asarray(OPERATIONS[our_name](image, level / 10, GREY))
        difference = np.abs(expected.astype(int) - found.astype(int))
        assert difference.mean() <= 0.1, their_name
