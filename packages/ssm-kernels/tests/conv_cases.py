"""Arguments of a causal convolution, drawn by Hypothesis: sizes, types, layouts and options."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from kernel_cases import (
    Leaf,
    layouts,
    leaf,
    parameter,
)
from torch import Tensor


@dataclass(frozen=True)
class Case:
    """Everything that decides the arguments of one call."""

    b: int
    l: int
    d: int
    k: int
    layout: str
    bias: bool
    carry: bool
    silu: bool
    reverse: bool
    seed: int

    def leaves(self, dtype: torch.dtype) -> dict[str, Leaf]:
        torch.manual_seed(self.seed)
        real = torch.float64 if dtype is torch.float64 else torch.float32
        made = {
            "x": leaf(torch.randn, (self.b, self.l, self.d), dtype, self.layout),
            "weight": parameter(torch.randn(self.d, self.k), real),
        }
        if self.bias:
            made["bias"] = parameter(torch.randn(self.d), real)
        if self.carry:
            made["initial_state"] = parameter(torch.randn(self.b, self.d, self.k - 1), real)
        return made

    def options(self) -> dict[str, object]:
        return {"activation": "silu" if self.silu else None, "reverse": self.reverse}

    def cotangents(self) -> tuple[Tensor, Tensor]:
        return torch.randn(self.b, self.l, self.d), torch.randn(self.b, self.d, self.k - 1)


cases = st.builds(
    Case,
    b=st.integers(0, 3),
    l=st.sampled_from([0, 1, 2, 3, 4, 7, 16, 63, 64, 65, 130, 259]),
    d=st.sampled_from([0, 1, 2, 3, 4, 8, 15, 16, 17, 33, 70, 130, 260]),
    k=st.integers(1, 8),
    layout=layouts,
    bias=st.booleans(),
    carry=st.booleans(),
    silu=st.booleans(),
    reverse=st.booleans(),
    seed=st.integers(0, 2**16),
)
EVERYTHING = Case(2, 37, 19, 4, "contiguous", True, True, True, False, 1)
