"""Real handwritten digits, 8 x 8, that come with scikit-learn: always there, no download.

Source: Alpaydin & Kaynak 1998, "Optical recognition of handwritten digits", UCI repository (its
test part, 1797 images).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ssm_core import DataBundle, DataInfo
from ssm_core.errors import ConfigError
from ssm_vision.data.in_memory import InMemoryImages, Normalisation, as_is

INFO = DataInfo(input_shape=(1, 8, 8), n_outputs=10, labels=tuple("0123456789"))
NORMALISATION = Normalisation(mean=(0.3053,), std=(0.3760,), white=16.0)


@dataclass(frozen=True)
class DigitsOptions:
    """The digits of scikit-learn: 1797 images, 8 x 8, one fixed split with equal class shares.

    Args:
        test_frac: share of the images kept for testing, 0..1.
    """

    test_frac: float = 0.25

    def __post_init__(self) -> None:
        if not 0.02 <= self.test_frac <= 0.98:
            raise ConfigError(
                f"data.test_frac is {self.test_frac}, expected a number from 0.02 to 0.98"
            )


def build(options: DigitsOptions) -> DataBundle:
    """Load and split the digits."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(
        images, labels, test_size=options.test_frac, stratify=labels, random_state=0
    )
    train_images, test_images, train_labels, test_labels = (torch.from_numpy(p) for p in parts)
    return DataBundle(
        train=_part(train_images, train_labels),
        evaluation=_part(test_images, test_labels),
        info=INFO,
        collate=as_is,
    )


def _part(images: torch.Tensor, labels: torch.Tensor) -> InMemoryImages:
    """(n, 64) numbers 0..16 and (n,) labels -> a data set."""
    return InMemoryImages(
        images.to(torch.uint8).view(-1, 1, 8, 8), labels.to(torch.int64), NORMALISATION
    )
