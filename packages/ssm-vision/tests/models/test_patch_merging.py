"""Patch merging pixel by pixel, odd maps included."""

from __future__ import annotations

import pytest
import torch
from vmamba_reference import jitter, merged

from ssm_vision.models.patch_merging import PatchMerging


@pytest.mark.parametrize(("rows", "columns"), [(4, 6), (3, 6), (4, 5), (5, 3), (1, 1), (1, 8)])
def test_four_pixels_become_one(rows: int, columns: int) -> None:
    merging = PatchMerging(3, 7).double()
    jitter(merging)
    x = torch.randn(2, rows, columns, 3, dtype=torch.float64)
    y = merging(x)
    assert y.shape == (2, (rows + 1) // 2, (columns + 1) // 2, 7)
    torch.testing.assert_close(y, merged(x, dict(merging.named_parameters())))


def test_empty_batch() -> None:
    assert PatchMerging(3, 6)(torch.zeros(0, 5, 4, 3)).shape == (0, 3, 2, 6)
