"""From an image file to a normalised square tensor: the options that all sets of files share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ssm_core.errors import ConfigError
from ssm_vision.augment import RandAugment
from ssm_vision.data.subset import SubsetOptions, require_strength

#: mean and standard deviation of ImageNet's colours, the usual choice for photographs
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Interpolation = Literal["bilinear", "bicubic", "random"]


@dataclass(frozen=True, kw_only=True)
class PhotographOptions(SubsetOptions):
    """How image files become examples.

    Args:
        size: pixels of a side; images are resized and cropped to a square.
        augment: crop at random and mirror while training, and what follows.
        scale: least and largest share of the image's area that a random crop takes.
        interpolation: of all resizing; random draws bilinear or bicubic for each training image and
            evaluates with bicubic.
        randaugment: mean strength of RandAugment's operations, 0..10, usually 9; null: none.
        colour_jitter: brightness, contrast and saturation change by up to this share.
        erasing: probability of covering a random rectangle with noise.
        eval_crop: side of the evaluated centre crop as a share of the resized image's shorter side.
        mean: of the colours, subtracted; on the scale 0..1.
        std: standard deviation of the colours, divided by.
    """

    size: int = 64
    augment: bool = True
    scale: tuple[float, float] = (0.5, 1.0)
    interpolation: Interpolation = "bilinear"
    randaugment: float | None = None
    colour_jitter: float = 0.0
    erasing: float = 0.0
    eval_crop: float = 1.0
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self.scale
        _require(self.size >= 1, "size", self.size, "1 or more")
        _require(0 < low <= high <= 1, "scale", self.scale, "two rising numbers above 0, at most 1")
        require_strength(self.randaugment)
        _require(0 <= self.colour_jitter <= 1, "colour_jitter", self.colour_jitter, FRACTION)
        _require(0 <= self.erasing <= 1, "erasing", self.erasing, FRACTION)
        _require(0 < self.eval_crop <= 1, "eval_crop", self.eval_crop, "above 0, at most 1")
        _require(min(self.std) > 0, "std", self.std, "numbers above 0")


FRACTION = "a number from 0 to 1"


def _require(fine: bool, key: str, value: object, expected: str) -> None:
    if not fine:
        raise ConfigError(f"data.{key} is {value!r}, expected {expected}")


def train_transform(options: PhotographOptions) -> Any:
    """Pillow image -> normalised tensor (3, size, size), at random; as for evaluation without
    `augment`."""
    from torchvision.transforms import v2

    if not options.augment:
        return eval_transform(options)
    steps: list[Any] = [_random_crop(options), v2.RandomHorizontalFlip()]
    if options.randaugment is not None:
        fill = tuple(round(255 * m) for m in options.mean)
        steps.append(RandAugment(options.randaugment, fill))
    if options.colour_jitter:
        steps.append(v2.ColorJitter(*[options.colour_jitter] * 3))
    steps += _to_tensor(options)
    if options.erasing:  # normal noise, as normalised pixels are
        steps.append(v2.RandomErasing(options.erasing, scale=(0.02, 1 / 3), value="random"))
    return v2.Compose(steps)


def eval_transform(options: PhotographOptions) -> Any:
    """Pillow image -> normalised tensor (3, size, size): the centre of the resized image."""
    from torchvision.transforms import v2

    mode = _mode("bilinear" if options.interpolation == "bilinear" else "bicubic")
    resized = int(options.size / options.eval_crop)
    steps = [v2.Resize(resized, interpolation=mode), v2.CenterCrop(options.size)]
    return v2.Compose([*steps, *_to_tensor(options)])


def _random_crop(options: PhotographOptions) -> Any:
    from torchvision.transforms import v2

    names = (
        ["bilinear", "bicubic"] if options.interpolation == "random" else [options.interpolation]
    )
    crops = [
        v2.RandomResizedCrop(options.size, scale=options.scale, interpolation=_mode(name))
        for name in names
    ]
    return crops[0] if len(crops) == 1 else v2.RandomChoice(crops)


def _to_tensor(options: PhotographOptions) -> list[Any]:
    import torch
    from torchvision.transforms import v2

    scaled = v2.ToDtype(torch.float32, scale=True)
    return [v2.ToImage(), scaled, v2.Normalize(list(options.mean), list(options.std))]


def _mode(name: str) -> Any:
    from torchvision.transforms import InterpolationMode

    return InterpolationMode(name)
