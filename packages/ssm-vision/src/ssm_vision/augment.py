"""RandAugment in the form in which vision transformers and image SSMs are trained.

Two operations are drawn for every image and each is carried out with probability 1/2, at a strength
that is drawn anew: what timm writes `rand-m9-mstd0.5-inc1` for magnitude 9.

Source: Cubuk et al. 2020, arXiv:1909.13719; the operations and their ranges as in Wightman et al.
2021, arXiv:2110.00476. All numbers are drawn from torch's generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

#: standard deviation of the strength around the magnitude, and its largest value
SPREAD, STRONGEST = 0.5, 10.0
OPERATIONS_PER_IMAGE, PROBABILITY = 2, 0.5


class RandAugment:
    """Change an image at random, in colours and geometry.

    Args:
        magnitude: mean strength of the operations, 0..10.
        fill: colour (0..255, one number per channel) of what geometry moves into the image.
    """

    def __init__(self, magnitude: float, fill: tuple[float, ...]) -> None:
        self.magnitude, self.fill = magnitude, list(fill)

    def __call__(self, image: Any) -> Any:
        """A Pillow image or a tensor (c, y, x) uint8 -> the same kind."""
        for _ in range(OPERATIONS_PER_IMAGE):
            choice = int(torch.randint(len(OPERATIONS), ()))
            if float(torch.rand(())) >= PROBABILITY:
                continue
            strength = self.magnitude + SPREAD * float(torch.randn(()))
            level = min(max(strength, 0.0), STRONGEST) / STRONGEST
            image = list(OPERATIONS.values())[choice](image, level, self.fill)
        return image

    def each(self, images: Tensor) -> Tensor:
        """A batch (b, c, y, x) uint8, every image by itself."""
        return torch.stack([self(image) for image in images]) if len(images) else images


Operation = Callable[[Any, float, list[float]], Any]
"""(image, level 0..1, fill colour) -> image"""


def _v2() -> Any:
    from torchvision.transforms.v2 import functional

    return functional


def _signed(amount: float) -> float:
    return amount if float(torch.rand(())) < 0.5 else -amount


def _affine(image: Any, fill: list[float], **changes: Any) -> Any:
    return _v2().affine(
        image,
        **{"angle": 0.0, "translate": [0.0, 0.0], "scale": 1.0, "shear": [0.0, 0.0]} | changes,
        interpolation=_bilinear(),
        fill=fill,
    )


def _bilinear() -> Any:
    from torchvision.transforms import InterpolationMode

    return InterpolationMode.BILINEAR


def _shear(axis: int) -> Operation:
    """Up to 0.3 pixels per pixel."""

    def shear(image: Any, level: float, fill: list[float]) -> Any:
        angles = [0.0, 0.0]
        angles[axis] = math.degrees(math.atan(_signed(0.3 * level)))
        return _affine(image, fill, shear=angles, center=[0.0, 0.0])

    return shear


def _translate(axis: int) -> Operation:
    """Up to 0.45 of the side."""

    def translate(image: Any, level: float, fill: list[float]) -> Any:
        height, width = _v2().get_size(image)
        pixels = [0.0, 0.0]
        pixels[axis] = _signed(0.45 * level) * (width, height)[axis]
        return _affine(image, fill, translate=pixels)

    return translate


def _enhance(name: str) -> Operation:
    """A factor from 0.1 to 1.9; 1 changes nothing."""

    def enhance(image: Any, level: float, fill: list[float]) -> Any:
        return getattr(_v2(), f"adjust_{name}")(image, max(0.1, 1 + _signed(0.9 * level)))

    return enhance


def _rotate(image: Any, level: float, fill: list[float]) -> Any:
    angle = _signed(30 * level)
    return _v2().rotate(image, angle, interpolation=_bilinear(), fill=fill)


def _posterize(image: Any, level: float, fill: list[float]) -> Any:
    return _v2().posterize(image, max(1, 4 - int(4 * level)))


def _solarize(image: Any, level: float, fill: list[float]) -> Any:
    return _v2().solarize(image, min(255, 256 - int(256 * level)))


def _solarize_add(image: Any, level: float, fill: list[float]) -> Any:
    """Make dark pixels brighter, by up to 110."""
    v2 = _v2()
    pixels = image if isinstance(image, Tensor) else v2.pil_to_tensor(image)
    brighter = (pixels.int() + int(110 * level)).clamp(max=255).to(torch.uint8)
    pixels = torch.where(pixels < 128, brighter, pixels)
    return pixels if isinstance(image, Tensor) else v2.to_pil_image(pixels)


OPERATIONS: dict[str, Operation] = {
    "auto-contrast": lambda image, level, fill: _v2().autocontrast(image),
    "equalize": lambda image, level, fill: _v2().equalize(image),
    "invert": lambda image, level, fill: _v2().invert(image),
    "rotate": _rotate,
    "posterize": _posterize,
    "solarize": _solarize,
    "solarize-add": _solarize_add,
    "colour": _enhance("saturation"),
    "contrast": _enhance("contrast"),
    "brightness": _enhance("brightness"),
    "sharpness": _enhance("sharpness"),
    "shear-x": _shear(0),
    "shear-y": _shear(1),
    "translate-x": _translate(0),
    "translate-y": _translate(1),
}
