"""Every layer on packed and on padded sequences: as if each were alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from protocol_cases import (
    D_MODEL,
    each_layer,
    moved,
    offsets_of,
    random,
    random_state,
)
from torch.utils import _pytree as pytree

from ssm_core.layers.protocol import SequenceLayer, StateError
from ssm_kernels.errors import ArgumentError, DTypeError, ShapeError


@each_layer
@pytest.mark.parametrize("lengths", [[3, 1, 0, 7], [65], [0, 0], [1, 1, 1], []])
@torch.no_grad()
def test_packed_sequences_are_what_they_are_alone(
    make: Callable[[], SequenceLayer], lengths: list[int]
) -> None:
    layer = moved(make(), torch.float64)
    offsets = offsets_of(lengths)
    x = random(1, sum(lengths), D_MODEL)
    if not layer.causal:
        y = layer(x, cu_seqlens=offsets)
        expected = [layer(piece) for piece in x.split(lengths, dim=1)]
        torch.testing.assert_close(y, torch.cat([x[:, :0], *expected], 1), rtol=1e-9, atol=1e-9)
        return
    state = random_state(layer, len(lengths), torch.float64)
    for start in (None, state):
        y, final = layer(x, state=start, return_state=True, cu_seqlens=offsets)
        assert y.shape == x.shape
        for i, piece in enumerate(x.split(lengths, dim=1) if lengths else []):
            own = pytree.tree_map(lambda t, i=i: t[i : i + 1], start) if start else None
            expected_y, expected_final = layer(piece, state=own, return_state=True)
            got = y[:, offsets[i] : offsets[i + 1]]
            torch.testing.assert_close(got, expected_y, rtol=1e-9, atol=1e-9)
            assert_continues_alike(
                layer, pytree.tree_map(lambda t, i=i: t[i : i + 1], final), expected_final
            )


def assert_continues_alike(layer: SequenceLayer, state: Any, expected: Any) -> None:
    """What follows is the same; the states of attention may differ in steps that nobody sees."""
    x = random(1, 2, D_MODEL, seed=9)
    torch.testing.assert_close(
        layer(x, state=state), layer(x, state=expected), rtol=1e-9, atol=1e-9
    )


@each_layer
@torch.no_grad()
def test_padding_is_as_if_it_were_not_there(make: Callable[[], SequenceLayer]) -> None:
    layer = moved(make(), torch.float64)
    x = random(5, 6, D_MODEL)
    x[0, :2] = math.nan  # padding may hold anything
    mask = torch.tensor(
        [[0, 0, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [1] * 6, [0] * 6, [0, 1, 0, 1, 0, 0]]
    )
    mask = mask.bool()
    y = layer(x, mask=mask)
    assert y.shape == x.shape
    assert not y[~mask].any()
    final = layer(x, mask=mask, return_state=True)[1] if layer.causal else None
    for i in range(5):
        real = x[i : i + 1, mask[i]]
        torch.testing.assert_close(y[i : i + 1, mask[i]], layer(real), rtol=1e-9, atol=1e-9)
        if layer.causal:
            own = pytree.tree_map(lambda t, i=i: t[i : i + 1], final)
            assert_continues_alike(layer, own, layer(real, return_state=True)[1])


@each_layer
def test_no_gradient_crosses_from_one_packed_sequence_to_another(
    make: Callable[[], SequenceLayer],
) -> None:
    layer = moved(make(), torch.float64)
    x = random(1, 9, D_MODEL).requires_grad_()
    y = layer(x, cu_seqlens=offsets_of([4, 5]))
    (gradient,) = torch.autograd.grad(y[:, 4:].square().sum(), x)
    assert not gradient[:, :4].any()
    assert gradient[:, 4:].any()


@each_layer
def test_masks_and_offsets_that_do_not_fit(make: Callable[[], SequenceLayer]) -> None:
    layer, x = make(), torch.zeros(2, 3, D_MODEL)
    name = type(layer).__name__
    real = torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(DTypeError, match=f"{name}: mask is torch.int64, expected torch.bool"):
        layer(x, mask=real.long())
    with pytest.raises(ShapeError, match=r"mask has shape \(2, 2\), expected \(b, l\) = \(2, 3\)"):
        layer(x, mask=real[:, :2])
    with pytest.raises(ArgumentError, match="mask and cu_seqlens are both given"):
        layer(x[:1], mask=real[:1], cu_seqlens=offsets_of([3]))
    with pytest.raises(ShapeError, match=f"{name}: batch is 2, expected 1 with cu_seqlens"):
        layer(x, cu_seqlens=offsets_of([3]))
    with pytest.raises(ArgumentError, match=rf"{name}: cu_seqlens is \[0, 2\], expected .* l = 3"):
        layer(x[:1], cu_seqlens=offsets_of([2]))
    if layer.causal:
        with pytest.raises(StateError, match="for a batch of 2, expected 2 as its first axis"):
            layer(x[:1], state=layer.initial_state(1), cu_seqlens=offsets_of([2, 1]))
