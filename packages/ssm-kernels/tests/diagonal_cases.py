"""Arguments of a diagonal scan, drawn by Hypothesis: sizes, types, layouts and options."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from kernel_cases import DTYPES, TOLERANCE, Leaf, gradient_slack, layouts, leaf, parameter
from torch import Tensor

ALL_DTYPES = (*DTYPES, torch.complex64, torch.complex128)


def tolerance(dtype: torch.dtype) -> float:
    return TOLERANCE[dtype.to_real() if dtype.is_complex else dtype]


def slack(dtype: torch.dtype) -> float:
    return gradient_slack(dtype.to_real() if dtype.is_complex else dtype, dtype.is_complex)


def state_type(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype


def randn(*shape: int, dtype: torch.dtype) -> Tensor:
    """Standard normal values, drawn in at least single precision."""
    return torch.randn(*shape, dtype=state_type(dtype)).to(dtype)


def factors(*shape: int, dtype: torch.dtype) -> Tensor:
    """Values of a that keep the state bounded: magnitudes up to 1, any sign or angle."""
    drawn = randn(*shape, dtype=state_type(dtype))
    return (torch.rand(*shape) * torch.sgn(drawn)).to(dtype)


@dataclass(frozen=True)
class Case:
    """Everything that decides the arguments of one call."""

    b: int
    l: int
    d: int
    own: tuple[bool, bool, bool]  # whether a has its own value per batch index, step and channel
    layout: str
    layout_of_a: str
    carry: bool
    reverse: bool
    seed: int

    def leaves(self, dtype: torch.dtype) -> dict[str, Leaf]:
        torch.manual_seed(self.seed)
        full = self.b, self.l, self.d
        shape = [size if own else 1 for size, own in zip(full, self.own, strict=True)]

        def draw_a(*storage: int) -> Tensor:
            return factors(*storage, dtype=dtype)

        def draw(*storage: int) -> Tensor:
            return randn(*storage, dtype=dtype)

        made = {
            "a": leaf(draw_a, shape, dtype, self.layout_of_a),
            "u": leaf(draw, full, dtype, self.layout),
        }
        if self.carry:
            made["initial_state"] = parameter(draw(self.b, self.d), state_type(dtype))
        return made

    def cotangents(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        # sums over all steps must not overflow half precision
        scale = 2.0**-8 if dtype is torch.float16 else 1.0
        return (
            randn(self.b, self.l, self.d, dtype=dtype) * scale,
            randn(self.b, self.d, dtype=state_type(dtype)) * scale,
        )


cases = st.builds(
    Case,
    b=st.integers(0, 3),
    l=st.sampled_from([0, 1, 2, 3, 7, 16, 33, 70, 130, 256, 257, 300, 515]),
    d=st.sampled_from([0, 1, 2, 3, 4, 7, 8, 15, 16, 17, 33, 70, 130, 300]),
    own=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    layout=layouts,
    layout_of_a=layouts,
    carry=st.booleans(),
    reverse=st.booleans(),
    seed=st.integers(0, 2**16),
)
# Few channels and many steps: the kernel runs the chunks of a sequence at once.
long_cases = st.builds(
    Case,
    b=st.integers(1, 2),
    l=st.sampled_from([4096, 4099, 8192, 8193, 9000]),
    d=st.sampled_from([1, 3, 17, 32]),
    own=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    layout=layouts,
    layout_of_a=layouts,
    carry=st.booleans(),
    reverse=st.booleans(),
    seed=st.integers(0, 2**16),
)
FULL = (True, True, True)
CONSTANT = (False, False, True)
EVERYTHING = Case(2, 37, 19, FULL, "contiguous", "contiguous", True, False, 1)
LONG = Case(1, 9000, 33, FULL, "contiguous", "contiguous", True, False, 1)
