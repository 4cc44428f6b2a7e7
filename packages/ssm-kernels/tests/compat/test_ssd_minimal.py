"""The scan of Mamba-2 from sums over segments, against the steps one by one."""

from __future__ import annotations

import pytest
import torch
from shim_cases import close

from ssm_kernels.compat.ssd_minimal import segsum, segsum_unstable, ssd_minimal_discrete
from ssm_kernels.errors import DTypeError, ShapeError


@pytest.mark.parametrize("function", [segsum, segsum_unstable])
def test_sums_over_segments(function) -> None:
    x = torch.randn(2, 5, dtype=torch.float64)
    sums = function(x)
    for i in range(5):
        for j in range(5):
            expected = x[:, j + 1 : i + 1].sum(1) if i >= j else torch.full((2,), -torch.inf)
            close(sums[:, i, j], expected)


def test_sums_keep_small_terms_beside_large_ones() -> None:
    x = torch.tensor([1e8, 1e-3, 1e-3])
    close(segsum(x)[2, 0], torch.tensor(2e-3), 1e-6)


@pytest.mark.parametrize("block_len", [1, 3, 6])
@pytest.mark.parametrize("starts_at_zero", [False, True])
def test_blocks_give_the_steps(block_len: int, starts_at_zero: bool) -> None:
    torch.manual_seed(0)
    b, l, h, p, n = 2, 6, 3, 2, 4
    shapes = ((b, l, h, p), (b, l, h), (b, l, h, n), (b, l, h, n), (b, 1, h, p, n))
    X, A, B, C, initial = (torch.randn(*shape).double() for shape in shapes)
    state = torch.zeros_like(initial[:, 0]) if starts_at_zero else initial[:, 0]
    outputs = []
    for t in range(l):
        added = X[:, t].unsqueeze(-1) * B[:, t].unsqueeze(-2)
        state = A[:, t].exp()[..., None, None] * state + added
        outputs.append((state * C[:, t].unsqueeze(-2)).sum(-1))
    y, final = ssd_minimal_discrete(X, A, B, C, block_len, None if starts_at_zero else initial)
    close(y, torch.stack(outputs, 1))
    close(final, state)


def test_refusals() -> None:
    x = torch.zeros(1, 4, 1, 1)
    with pytest.raises(ShapeError, match="4 steps, expected a multiple of block_len 3"):
        ssd_minimal_discrete(x, x[..., 0], x, x, 3)
    with pytest.raises(DTypeError, match="expected one type"):
        ssd_minimal_discrete(x, x[..., 0].double(), x, x, 2)
