"""Images for pictures: from a data set, from a file, or from the digits that are always there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ssm_core import DataInfo
from ssm_core.errors import ConfigError, DataError
from ssm_vision.data import cifar10, cifar100, digits, image_folder, mnist
from ssm_vision.data.in_memory import Normalisation
from ssm_vision.visualize import Examples

#: how the images of a data set were normalised; an image from a file must be treated alike
NORMALISATIONS = {
    "digits": digits.NORMALISATION,
    "mnist": mnist.NORMALISATION,
    "fashion-mnist": mnist.FASHION_NORMALISATION,
    "cifar10": cifar10.NORMALISATION,
    "cifar100": cifar100.NORMALISATION,
    "imagenet": Normalisation(image_folder.MEAN, image_folder.STD),
    "image-folder": Normalisation(image_folder.MEAN, image_folder.STD),
}


def choose(labels: Tensor, predictions: Tensor, count: int) -> list[int]:
    """Indices of `count` examples that say most: mistakes (a quarter), else one per class in turn.

    Args:
        labels, predictions: (n,) int64.
    """
    wrong = (labels != predictions).nonzero().flatten().tolist()
    right = (labels == predictions).nonzero().flatten().tolist()
    seen: dict[int, int] = {}
    turns = []  # how often this example's class came before it
    for index in right:
        label = int(labels[index])
        turns.append(seen.get(label, 0))
        seen[label] = turns[-1] + 1
    n_wrong = max(min(len(wrong), count // 4), count - len(right))
    order = sorted(range(len(right)), key=lambda i: (turns[i], int(labels[right[i]])))
    return [right[i] for i in order[: count - n_wrong]] + wrong[:n_wrong]


def digits_as_mnist(count: int) -> Examples:
    """scikit-learn's digits in MNIST's form: 20 pixels high in a frame of 28, white on black."""
    part = digits.build(digits.DigitsOptions()).evaluation
    images, labels = part.images, part.labels  # type: ignore[attr-defined]
    where = choose(labels, labels, count)
    small = images[where].float() / digits.NORMALISATION.white
    large = F.interpolate(small, size=(20, 20), mode="bicubic", align_corners=False)
    framed = F.pad(large.clamp(0, 1), (4, 4, 4, 4)) * mnist.NORMALISATION.white
    return Examples(
        mnist.NORMALISATION(framed), labels[where], "digits of scikit-learn, enlarged to 28 x 28"
    )


def from_file(path: Path, info: DataInfo, normalise: Normalisation, invert: bool) -> Examples:
    """One image file, made as large and as colourful as the model wants it.

    Args:
        invert: exchange black and white (MNIST digits are white on black).
    Raises:
        DataError: the file is missing or not an image.
        ConfigError: the model wants neither grey nor colour images.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    channels, height, width = info.input_shape
    if channels not in (1, 3):
        raise ConfigError(f"{path}: the model reads {channels} channels, a file gives 1 or 3")
    try:
        with Image.open(path) as opened:
            image = opened.convert("L" if channels == 1 else "RGB")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such image file and no such data set") from error
    except (UnidentifiedImageError, OSError) as error:
        raise DataError(f"{path}: damaged or not an image") from error
    image = ImageOps.fit(image, (width, height))
    if invert:
        image = ImageOps.invert(image)
    pixels = torch.from_numpy(np.array(image)).view(height, width, channels)
    scaled = pixels.permute(2, 0, 1).unsqueeze(0).float() * (normalise.white / 255.0)
    return Examples(normalise(scaled), None, path.name)
