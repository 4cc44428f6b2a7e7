from __future__ import annotations

import pytest
import torch

from ssm_core.errors import ConfigError
from ssm_vision.data import digits


def test_shapes_and_info() -> None:
    bundle = digits.build(digits.DigitsOptions())
    assert (len(bundle.train), len(bundle.evaluation)) == (1347, 450)
    images, labels = bundle.train.__getitems__(range(5))
    assert images.shape == (5, *bundle.info.input_shape) == (5, 1, 8, 8)
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64


def test_numbers_are_normalised() -> None:
    bundle = digits.build(digits.DigitsOptions())
    images, _ = bundle.train.__getitems__(range(len(bundle.train)))
    assert float(images.mean()) == pytest.approx(0.0, abs=0.01)
    assert float(images.std()) == pytest.approx(1.0, abs=0.01)


def test_the_split_is_fixed_disjoint_and_fair() -> None:
    first, second = (digits.build(digits.DigitsOptions()) for _ in range(2))
    assert torch.equal(first.train.images, second.train.images)
    counts = first.train.labels.bincount() / first.evaluation.labels.bincount()
    assert float(counts.max() - counts.min()) < 0.1
    both = torch.cat([first.train.images, first.evaluation.images]).flatten(1)
    assert len(both) == 1797
    assert len(both.unique(dim=0)) == 1797


def test_the_digits_are_upright() -> None:
    """A zero is hollow in the middle, a one is not."""
    bundle = digits.build(digits.DigitsOptions())
    mean = [bundle.train.images[bundle.train.labels == n].float().mean(0)[0] for n in (0, 1)]
    assert float(mean[0][3:5, 3:5].mean()) < 2 < 8 < float(mean[1][3:5, 3:5].mean())


def test_test_frac() -> None:
    assert len(digits.build(digits.DigitsOptions(test_frac=0.5)).evaluation) == 899
    with pytest.raises(ConfigError, match=r"data\.test_frac is 1\.5, expected a number from"):
        digits.DigitsOptions(test_frac=1.5)
