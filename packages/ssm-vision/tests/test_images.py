from __future__ import annotations

import pytest
import torch

from ssm_vision.images import fill_up


@pytest.mark.parametrize(
    ("length", "expected"),
    [(1, [0] * 9), (2, [0, 1] * 4 + [0]), (4, [0, 1, 2, 3, 2, 1, 0, 1, 2]), (9, list(range(9)))],
)
def test_back_and_forth(length: int, expected: list[int]) -> None:
    rows = torch.arange(length).view(1, length, 1)
    assert fill_up(rows, 9, 1).flatten().tolist() == expected
    assert fill_up(rows.mT, 1, 9).flatten().tolist() == expected


def test_agrees_with_reflection_where_that_is_possible() -> None:
    images = torch.randn(2, 3, 5, 7)
    expected = torch.nn.functional.pad(images, (0, 4, 0, 3), mode="reflect")
    assert torch.equal(fill_up(images, 8, 11), expected)


def test_large_enough_images_are_not_copied() -> None:
    images = torch.randn(1, 1, 4, 6)
    assert fill_up(images, 4, 5) is images
