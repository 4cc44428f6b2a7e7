"""Sizes are solved for, and every tensor that does not fit is named."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssm_core.errors import CheckpointError
from ssm_core.official.axes import fit

LAYOUT = {"in": "2E+2gn+h, d", "conv": "m+2gn, 1, k", "norm": "m", "A": "h", "out": "d, E", "s": ""}
SIZES = {"E": 12, "gn": 5, "h": 3, "d": 7, "m": 9, "k": 4}


def tensors_of(sizes: dict[str, int]) -> dict[str, torch.Tensor]:
    E, gn, h, d, m, k = (sizes[name] for name in SIZES)
    shapes = {"in": (2 * E + 2 * gn + h, d), "conv": (m + 2 * gn, 1, k), "norm": (m,), "A": (h,)}
    return {name: torch.zeros(shape) for name, shape in {**shapes, "out": (d, E), "s": ()}.items()}


@settings(max_examples=50, deadline=None)
@given(st.fixed_dictionaries({name: st.integers(1, 9) for name in SIZES}))
def test_sizes_are_found(sizes: dict[str, int]) -> None:
    assert fit("it", tensors_of(sizes), LAYOUT) == sizes


def test_without_a_tensor_of_its_own_a_size_follows_from_sums() -> None:
    tensors = tensors_of(SIZES)
    del tensors["norm"]
    layout = {name: axes for name, axes in LAYOUT.items() if name != "norm"}
    assert fit("it", tensors, layout) == SIZES


def test_everything_wrong_is_in_one_line() -> None:
    tensors = tensors_of(SIZES)
    del tensors["norm"], tensors["A"]
    tensors |= {"more": torch.zeros(1), "conv": torch.zeros(19, 4), "out": torch.zeros(7, 12, 1)}
    with pytest.raises(CheckpointError) as caught:
        fit("it", tensors, LAYOUT, "; do this")
    assert str(caught.value) == (
        "it: the state dict does not fit: missing norm, A; unexpected more; "
        "conv has shape (19, 4), expected (m+2gn, 1, k), "
        "out has shape (7, 12, 1), expected (d, E) = (7, E); do this"
    )


def test_the_odd_one_out_is_blamed() -> None:
    tensors = {name: torch.zeros(8) for name in "abc"} | {"first": torch.zeros(5)}
    with pytest.raises(CheckpointError, match=r"fit: first has shape \(5,\), expected \(h\) = \(8"):
        fit("it", tensors, {name: "h" for name in ("first", "a", "b", "c")})


def test_a_sum_that_no_whole_size_solves() -> None:
    tensors = {"a": torch.zeros(4), "b": torch.zeros(7)}
    with pytest.raises(CheckpointError, match=r"b has shape \(7,\), expected \(h\+2n\)$"):
        fit("it", tensors, {"a": "h", "b": "h+2n"})


def test_long_lists_are_cut_and_counted() -> None:
    with pytest.raises(CheckpointError, match=r"missing x0, .*x9, \.\. \(12 in all\)$"):
        fit("it", {}, {f"x{i}": "h" for i in range(12)})
