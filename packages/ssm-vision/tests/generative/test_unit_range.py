from __future__ import annotations

import pytest
import torch

from ssm_core import DataInfo
from ssm_core.errors import ConfigError
from ssm_kernels.errors import ShapeError
from ssm_vision.data import cifar10, mnist
from ssm_vision.data.in_memory import Normalisation
from ssm_vision.generative.unit_range import (
    check_images,
    check_labels,
    image_shape,
    unit_range,
)


@pytest.mark.parametrize("normalise", [mnist.NORMALISATION, cifar10.NORMALISATION])
def test_undoes_the_normalisation(normalise: Normalisation) -> None:
    channels = len(normalise.mean)
    stored = torch.randint(256, (2, channels, 3, 4), dtype=torch.uint8)
    its = unit_range("it", normalise.mean, normalise.std, channels)
    unit = its.to_unit(normalise(stored))
    torch.testing.assert_close(unit, stored / 255, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(its.from_unit(unit), normalise(stored), rtol=1e-5, atol=1e-5)


def test_what_lies_outside_is_cut_off_and_one_number_stands_for_all_channels() -> None:
    its = unit_range("it", [0.5], [0.5], 3)
    images = torch.tensor([-3.0, -1.0, 0.0, 3.0]).expand(1, 3, 1, 4)
    expected = torch.tensor([0.0, 0.0, 0.5, 1.0]).expand(1, 3, 1, 4)
    torch.testing.assert_close(its.to_unit(images), expected)


def test_errors() -> None:
    with pytest.raises(ConfigError, match="it: mean has 2 numbers, expected 1 or 3"):
        unit_range("it", [0.1, 0.2], [1.0], 3)
    with pytest.raises(ConfigError, match=r"it: std is \(0.0,\), expected numbers above 0"):
        unit_range("it", [0.1], [0.0], 3)
    with pytest.raises(ConfigError, match="it needs images"):
        image_shape("it", DataInfo((7,), 2))
    with pytest.raises(ShapeError, match=r"it: images have shape \(2, 3, 4, 4\), expected .*1, 4"):
        check_images("it", torch.zeros(2, 3, 4, 4), (1, 4, 4))
    with pytest.raises(ShapeError, match=r"labels have shape None, expected \(2,\)"):
        check_labels("it", None, True, 2)
    with pytest.raises(ShapeError, match=r"labels have shape \(2,\), expected None"):
        check_labels("it", torch.zeros(2), False, 2)
