"""State dicts, trees and arrays become flat tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ssm_core.errors import CheckpointError
from ssm_core.official.tensors import collect


def test_trees_are_laid_flat_and_arrays_become_tensors() -> None:
    array = np.arange(6.0)[::-2]  # of negative stride
    array.flags.writeable = False
    tree = {"a": {"b": {"c": array}}, "d": nn.Parameter(torch.ones(2)), "e": np.float32(2)}
    flat = collect("it", tree, "", "/")
    assert flat.keys() == {"a/b/c", "d", "e"}
    assert torch.equal(flat["a/b/c"], torch.tensor([5.0, 3.0, 1.0], dtype=torch.float64))
    assert not flat["d"].requires_grad
    assert flat["e"].shape == ()


def test_prefix_chooses() -> None:
    flat = {"x.a": torch.zeros(1), "x.b": torch.zeros(2), "y.a": torch.zeros(3)}
    assert {k: len(v) for k, v in collect("it", flat, "x.", ".").items()} == {"a": 1, "b": 2}
    with pytest.raises(CheckpointError, match=r"with the prefix 'z\.'; the first names are x\.a, "):
        collect("it", flat, "z.", ".")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([1], "it: the state dict is a list, expected a mapping of names to tensors"),
        ({"a": [1.0]}, "it: a is a list, expected a tensor or an array"),
        ({"a": np.array(["text"])}, "it: a cannot become a tensor: "),
    ],
)
def test_other_things_are_refused(given: Any, message: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        collect("it", given, "", ".")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
