"""Patches against slices of the image."""

from __future__ import annotations

import pytest
import torch

from ssm_vision.models.patch_embedding import PatchEmbedding


@pytest.mark.parametrize(("patch", "stride"), [(4, 4), (4, 2), (3, 5)])
def test_equals_a_product_per_slice(patch: int, stride: int) -> None:
    embed = PatchEmbedding(2, 6, patch, stride).double()
    torch.nn.init.normal_(embed.proj.bias)
    images = torch.randn(2, 2, 9, 14, dtype=torch.float64)
    y = embed(images)
    rows, columns = embed.grid(9, 14)
    assert y.shape == (2, 6, rows, columns)
    for i in range(rows):
        for j in range(columns):
            piece = images[:, :, i * stride : i * stride + patch, j * stride : j * stride + patch]
            product = torch.einsum("bcyx,dcyx->bd", piece, embed.proj.weight) + embed.proj.bias
            torch.testing.assert_close(y[:, :, i, j], product)
