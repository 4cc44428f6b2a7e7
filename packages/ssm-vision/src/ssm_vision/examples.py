"""Images for pictures: from a data set, from a file, or from the digits that are always there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from ssm_core import DataInfo
from ssm_core.errors import ConfigError, DataError
from ssm_vision.data import cifar10, cifar100, digits, image_folder, mnist
from ssm_vision.data.in_memory import Normalisation
from ssm_vision.visualize import Examples, Images, spread

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


#: to choose from; bounds the time and the memory that examples take on a CPU
MOST_IMAGES = 256
MOST_PIXELS = 3_200_000


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


def pool(data: Dataset[Any]) -> tuple[Images, list[Any]]:
    """Images (b, c, y, x) to choose examples from, evenly spread over a data set, and targets.

    Where images differ in size, only those of the first one's.
    """
    height, width = data[0][0].shape[-2:]
    count = max(min(MOST_IMAGES, MOST_PIXELS // (height * width)), 16)
    pairs = [data[i] for i in spread(len(data), count)]  # type: ignore[arg-type]
    pairs = [pair for pair in pairs if pair[0].shape == pairs[0][0].shape]
    images = torch.stack([image for image, _ in pairs])
    if not images.is_floating_point():
        images = images.float() / 255  # as the models themselves do
    return images, [target for _, target in pairs]


@torch.no_grad()
def telling(
    model: Callable[[Images], Tensor], images: Images, targets: list[Any], source: str, count: int
) -> Examples:
    """`count` of the images: for a classifier of every class and mistakes, else evenly spread.

    Args:
        targets: as the data set gives them; classes are whole numbers.
        source: where the images are from.
    """
    outputs = model(images)
    if outputs.dim() == 2 and all(isinstance(t, int) or _is_number(t) for t in targets):
        labels = torch.tensor([int(t) for t in targets])
        where = choose(labels, outputs.argmax(dim=1).cpu(), count)
        return Examples(images[where], labels[where], source)
    return Examples(images[spread(len(images), count)], None, source)


def _is_number(target: Any) -> bool:
    return isinstance(target, Tensor) and target.dim() == 0 and not target.is_floating_point()


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
