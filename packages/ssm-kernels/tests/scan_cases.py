"""Arguments of a selective scan, drawn by Hypothesis: sizes, types, layouts and options."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from hypothesis import strategies as st
from kernel_cases import (
    Leaf,
    layouts,
    leaf,
    parameter,
)
from torch import Tensor

LENGTHS = [0, 1, 2, 3, 7, 16, 31, 32, 33, 65]


@dataclass(frozen=True)
class Case:
    """Everything that decides the arguments of one call."""

    b: int
    l: int
    d: int
    n: int
    groups: tuple[int, int]  # of B and C: 0 no step axis, 1 (b, l, n), more (b, l, g, n)
    is_complex: bool
    skip: bool
    gate: bool
    bias: bool
    softplus: bool
    carry: bool
    reverse: bool
    layouts: tuple[str, ...]
    seed: int

    def leaves(self, dtype: torch.dtype) -> dict[str, Leaf]:
        torch.manual_seed(self.seed)
        b, l, d, n = self.b, self.l, self.d, self.n
        real = torch.float64 if dtype is torch.float64 else torch.float32
        state = real.to_complex() if self.is_complex else real
        activation = partial(leaf, shape=(b, l, d), dtype=dtype)
        delta = torch.randn if self.softplus else lambda *s: torch.rand(*s) + 0.05
        A = -torch.rand(d, n) * 2
        if self.is_complex:
            A = A + 3j * torch.randn(d, n)
        made = {
            "u": activation(torch.randn, layout=self.layouts[0]),
            "delta": activation(delta, layout=self.layouts[1]),
            "A": parameter(A, state),
            "B": self._projection(self.groups[0], self.layouts[2], dtype, state),
            "C": self._projection(self.groups[1], self.layouts[3], dtype, state),
        }
        if self.skip:
            made["D"] = parameter(torch.randn(d), real)
        if self.gate:
            made["z"] = activation(torch.randn, layout=self.layouts[4])
        if self.bias:
            made["delta_bias"] = parameter(torch.rand(d) * 0.5, real)
        if self.carry:
            made["initial_state"] = parameter(torch.randn(b, d, n, dtype=state), state)
        return made

    def _projection(self, groups: int, layout: str, dtype: torch.dtype, state: torch.dtype) -> Leaf:
        if groups == 0:
            return parameter(torch.randn(self.d, self.n, dtype=state), state)
        values = partial(torch.randn, dtype=state)
        variable = state if self.is_complex else dtype
        middle = () if groups == 1 else (groups,)
        return leaf(values, (self.b, self.l, *middle, self.n), variable, layout)

    def options(self) -> dict[str, object]:
        return {"delta_softplus": self.softplus, "reverse": self.reverse}

    def cotangents(self) -> tuple[Tensor, Tensor]:
        state = torch.complex128 if self.is_complex else torch.float64
        return torch.randn(self.b, self.l, self.d), torch.randn(self.b, self.d, self.n, dtype=state)


@st.composite
def cases(draw: st.DrawFn, is_complex: bool = False) -> Case:
    d = draw(st.sampled_from([0, 1, 2, 3, 6, 12, 16, 17, 24, 33]))
    groups = st.sampled_from([0, 1] + [g for g in (2, 3, 4, 6) if d % g == 0])
    flags = [draw(st.booleans()) for _ in range(6)]
    return Case(
        draw(st.integers(0, 3)),
        draw(st.sampled_from(LENGTHS)),
        d,
        draw(st.sampled_from([0, 1, 2, 3, 4, 5, 8, 16, 17])),
        (draw(groups), draw(groups)),
        is_complex,
        *flags,
        layouts=tuple(draw(layouts) for _ in range(5)),
        seed=draw(st.integers(0, 2**16)),
    )


EVERYTHING = Case(
    2, 37, 12, 5, (1, 3), False, True, True, True, True, True, False, ("contiguous",) * 5, 1
)
