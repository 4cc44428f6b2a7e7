"""The inverted residual against loops over rows and columns."""

from __future__ import annotations

import pytest
import torch

from ssm_vision.models.depthwise import InvertedResidual


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_equals_loops(kernel: int) -> None:
    branch = InvertedResidual(4, 3, kernel, "rms").double()
    for name, parameter in branch.named_parameters():
        torch.nn.init.normal_(parameter, std=3 if "expand" in name else 1)  # some reach 6
    x = torch.randn(2, 15, 4, dtype=torch.float64)
    hidden = branch.expand(branch.norm(x)).clamp(0, 6).reshape(2, 3, 5, 12)
    assert (hidden == 6).any()
    half = kernel // 2
    expected = torch.zeros(2, 3, 5, 4, dtype=torch.float64)
    for i in range(3):
        for j in range(5):
            total = branch.depthwise.bias.expand(2, 12)
            for di in range(-half, half + 1):
                for dj in range(-half, half + 1):
                    if 0 <= i + di < 3 and 0 <= j + dj < 5:
                        weight = branch.depthwise.weight[:, 0, di + half, dj + half]
                        total = total + hidden[:, i + di, j + dj] * weight
            expected[:, i, j] = branch.project(total.clamp(0, 6))
    torch.testing.assert_close(branch(x, (3, 5)), expected.reshape(2, 15, 4))
