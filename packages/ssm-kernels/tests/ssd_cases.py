"""Arguments of an SSD scan, drawn by Hypothesis: sizes, types, layouts and options."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from hypothesis import strategies as st
from kernel_cases import Leaf, layouts, leaf, parameter
from torch import Tensor

LENGTHS = [0, 1, 2, 7, 63, 64, 65, 130]


@dataclass(frozen=True)
class Case:
    """Everything that decides the arguments of one call."""

    b: int
    l: int
    h: int
    p: int
    g: int
    n: int
    skip: int  # axes of D, 0 for none
    gate: bool
    bias: bool
    softplus: bool
    limited: bool
    carry: bool
    reverse: bool
    layouts: tuple[str, ...]
    seed: int

    def leaves(self, dtype: torch.dtype) -> dict[str, Leaf]:
        torch.manual_seed(self.seed)
        b, l, h, p = self.b, self.l, self.h, self.p
        state = torch.float64 if dtype is torch.float64 else torch.float32
        steps = torch.randn if self.softplus else lambda *s: torch.rand(*s) + 0.05
        rows = partial(leaf, torch.randn, dtype=dtype)
        made = {
            "x": rows(shape=(b, l, h, p), layout=self.layouts[0]),
            "dt": leaf(steps, (b, l, h), dtype, self.layouts[1]),
            "A": parameter(-torch.rand(h) * 2, state),
            "B": rows(shape=(b, l, self.g, self.n), layout=self.layouts[2]),
            "C": rows(shape=(b, l, self.g, self.n), layout=self.layouts[3]),
        }
        if self.skip:
            made["D"] = parameter(torch.randn(*(h, p)[: self.skip]), state)
        if self.gate:
            made["z"] = rows(shape=(b, l, h, p), layout=self.layouts[4])
        if self.bias:
            made["dt_bias"] = parameter(torch.rand(h) * 0.5, state)
        if self.carry:
            made["initial_state"] = parameter(torch.randn(b, h, p, self.n), state)
        return made

    def options(self) -> dict[str, object]:
        limit = (0.3, 0.9) if self.limited else (0.0, math.inf)
        return {"dt_softplus": self.softplus, "dt_limit": limit, "reverse": self.reverse}

    def cotangents(self, states: int | None = None) -> tuple[Tensor, Tensor]:
        count = self.b if states is None else states
        # sums over all steps must not overflow half precision
        return (
            torch.randn(self.b, self.l, self.h, self.p) * 2**-4,
            torch.randn(count, self.h, self.p, self.n) * 2**-4,
        )


@st.composite
def cases(
    draw: st.DrawFn,
    lengths: tuple[int, ...] = tuple(LENGTHS),
    heads: tuple[int, ...] = (0, 1, 2, 3, 4, 6),
    rows: tuple[int, ...] = (0, 1, 2, 5, 8, 17, 33),
    states: tuple[int, ...] = (0, 1, 3, 8, 19, 35),
    batch: int = 3,
) -> Case:
    h = draw(st.sampled_from(heads))
    return Case(
        draw(st.integers(0, batch)),
        draw(st.sampled_from(lengths)),
        h,
        draw(st.sampled_from(rows)),
        draw(st.sampled_from([g for g in (1, 2, 3, 4) if h % g == 0])),
        draw(st.sampled_from(states)),
        draw(st.integers(0, 2)),
        *(draw(st.booleans()) for _ in range(6)),
        layouts=tuple(draw(layouts) for _ in range(5)),
        seed=draw(st.integers(0, 2**16)),
    )


EVERYTHING = Case(2, 37, 4, 3, 2, 5, 2, True, True, True, True, True, False, ("contiguous",) * 5, 1)
