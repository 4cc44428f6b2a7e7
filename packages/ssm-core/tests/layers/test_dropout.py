"""Dropout of features: one mask per sequence, whichever way the sequences come."""

from __future__ import annotations

import pytest
import torch

from ssm_core.layers.dropout import drop_features


def test_a_mask_is_shared_by_all_steps_of_a_sequence() -> None:
    y = drop_features(torch.ones(200, 3, 50), 0.25, training=True)
    assert torch.equal(y, y[:, :1].expand_as(y))
    assert y.unique().tolist() == pytest.approx([0, 4 / 3])
    assert 0.23 < (y == 0).float().mean() < 0.27
    assert not torch.equal(y[0], y[1])


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_packed_sequences_have_masks_of_their_own(dtype: torch.dtype) -> None:
    offsets = torch.tensor([0, 3, 3, 4, 9, 9], dtype=dtype)
    y = drop_features(torch.ones(1, 9, 60), 0.5, training=True, cu_seqlens=offsets)
    pieces = y[0].split([3, 1, 5])
    for piece in pieces:
        assert torch.equal(piece, piece[:1].expand_as(piece))
    assert not torch.equal(pieces[0][0], pieces[1][0])
    assert not torch.equal(pieces[1][0], pieces[2][0])
    empty = drop_features(torch.ones(1, 0, 60), 0.5, True, torch.tensor([0], dtype=dtype))
    assert empty.shape == (1, 0, 60)


def test_nothing_is_dropped_outside_training_or_at_probability_0() -> None:
    y = torch.randn(2, 3, 4)
    assert drop_features(y, 0.5, training=False) is y
    assert drop_features(y, 0.0, training=True) is y
