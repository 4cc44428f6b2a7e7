"""What ssd_scan says of arguments that do not fit."""

from __future__ import annotations

import pytest
import torch
from ssd_cases import EVERYTHING

from ssm_kernels import ArgumentError, DTypeError, ShapeError, ssd_scan

WRONG_SHAPES = {
    "x": ((2, 3, 4), "4 axes"),
    "dt": ((2, 37, 3), r"\(b, l, h\) = \(2, 37, 4\)"),
    "A": ((4, 1), r"\(h,\) = \(4,\)"),
    "B": ((2, 37, 3, 5), "g dividing h = 4"),
    "C": ((2, 37, 1, 5), r"that of B, \(b, l, g, n\) = \(2, 37, 2, 5\)"),
    "D": ((3,), r"\(h,\) = \(4,\) or \(h, p\) = \(4, 3\)"),
    "z": ((2, 37, 4, 2), "that of x"),
    "dt_bias": ((1,), r"\(h,\) = \(4,\)"),
    "initial_state": ((2, 4, 5, 3), r"\(b, h, p, n\) = \(2, 4, 3, 5\)"),
}


@pytest.mark.parametrize("name", WRONG_SHAPES)
def test_wrong_shapes_are_named(name: str) -> None:
    shape, message = WRONG_SHAPES[name]
    tensors = {k: x.storage.detach() for k, x in EVERYTHING.leaves(torch.float32).items()}
    tensors[name] = torch.zeros(shape)
    with pytest.raises(ShapeError, match=f"ssd_scan: {name} has shape .*{message}"):
        ssd_scan(**tensors)


def test_wrong_options_and_types_are_named() -> None:
    tensors = {k: x.storage.detach() for k, x in EVERYTHING.leaves(torch.float32).items()}
    with pytest.raises(ArgumentError, match=r"dt_limit is \(1.0, 0.5\)"):
        ssd_scan(**tensors, dt_limit=(1.0, 0.5))
    with pytest.raises(ArgumentError, match="chunk_size is 0"):
        ssd_scan(**tensors, chunk_size=0)
    with pytest.raises(DTypeError, match=r"A has dtype torch\.complex64"):
        ssd_scan(**{**tensors, "A": tensors["A"].to(torch.complex64)})
