"""New samples through the causal convolution: every backend against float64 and whole sequences."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kernel_cases import BACKENDS, DTYPES, TOLERANCE, assert_close, examples
from torch import Tensor
from update_cases import input_layouts, random, seeds, state_layouts

from ssm_kernels import (
    causal_conv1d,
    causal_conv1d_reference,
    causal_conv1d_update,
    causal_conv1d_update_reference,
    native,
)


@dataclass(frozen=True)
class Case:
    """Everything that decides the arguments of one call."""

    b: int
    l: int | None  # None: x is (b, d)
    d: int
    k: int
    more: int  # samples kept beyond k - 1
    bias: bool
    silu: bool
    ring: torch.dtype | None
    layouts: tuple[str, str]
    seed: int

    @property
    def s(self) -> int:
        return self.k - 1 + self.more

    def arguments(self, dtype: torch.dtype, state_dtype: torch.dtype) -> dict[str, Tensor]:
        torch.manual_seed(self.seed)
        real = torch.float64 if dtype is torch.float64 else torch.float32
        shape = (self.b, self.d) if self.l is None else (self.b, self.l, self.d)
        made = {
            "x": random(shape, dtype, self.layouts[0]),
            "conv_state": random((self.b, self.d, self.s), state_dtype, self.layouts[1]),
            "weight": torch.randn(self.d, self.k, dtype=real),
        }
        if self.bias:
            made["bias"] = torch.randn(self.d, dtype=real)
        if self.ring is not None:
            made["cache_seqlens"] = torch.randint(-3, 300, (self.b,), dtype=self.ring)
        return made

    @property
    def activation(self) -> str | None:
        return "silu" if self.silu else None


cases = st.builds(
    Case,
    b=st.integers(0, 3),
    l=st.sampled_from([None, None, 0, 1, 2, 3, 4, 7, 63, 64, 65, 130, 259]),
    d=st.sampled_from([0, 1, 2, 3, 8, 15, 16, 17, 33, 130, 260]),
    k=st.integers(1, 8),
    more=st.sampled_from([0, 0, 1, 2, 5, 63, 64, 65, 140]),
    bias=st.booleans(),
    silu=st.booleans(),
    ring=st.sampled_from([None, None, torch.int32, torch.int64]),
    layouts=st.tuples(input_layouts, state_layouts),
    seed=seeds,
)


def check(case: Case, dtype: torch.dtype, state_dtype: torch.dtype, backend: str) -> None:
    arguments = case.arguments(dtype, state_dtype)
    wide = {
        k: v.to(torch.float64, copy=True) if v.is_floating_point() else v
        for k, v in arguments.items()
    }
    expected = causal_conv1d_update_reference(**wide, activation=case.activation)
    before = {k: v.clone() for k, v in arguments.items()}
    state = arguments["conv_state"]
    strides, address = state.stride(), state.data_ptr()

    y = causal_conv1d_update(**arguments, activation=case.activation, backend=backend)

    assert y.dtype is dtype
    assert (state.stride(), state.data_ptr()) == (strides, address)
    assert_close(y, expected, TOLERANCE[dtype], "y")
    # samples are stored as they came in, but for the rounding to the state's type
    assert torch.equal(state, wide["conv_state"].to(state_dtype)), "state"
    for name in arguments.keys() - {"conv_state"}:
        assert torch.equal(arguments[name], before[name]), f"{name} was changed"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", BACKENDS)
@examples
@given(case=cases, state_dtype=st.sampled_from(DTYPES))
def test_values(case: Case, backend: str, dtype: torch.dtype, state_dtype: torch.dtype) -> None:
    check(case, dtype, state_dtype, backend)


@pytest.mark.parametrize("isa", native.available_isas())
@examples
@given(case=cases, dtype=st.sampled_from(DTYPES))
def test_every_instruction_set(case: Case, isa: str, dtype: torch.dtype) -> None:
    before = native.isa()
    native.set_isa(isa)
    try:
        check(case, dtype, dtype, "cpu")
    finally:
        native.set_isa(before)


@pytest.mark.parametrize("backend", BACKENDS)
@examples
@given(case=cases)
def test_is_the_convolution_continued(case: Case, backend: str) -> None:
    torch.manual_seed(case.seed)
    l = 1 if case.l is None else case.l
    x = torch.randn(case.b, l, case.d, dtype=torch.float64)
    weight, bias = torch.randn(case.d, case.k).double(), torch.randn(case.d).double()
    state = torch.randn(case.b, case.d, case.k - 1, dtype=torch.float64)
    expected, final = causal_conv1d(
        x,
        weight,
        bias,
        case.activation,
        initial_state=state,
        return_final_state=True,
        backend="reference",
    )
    given_x = x.squeeze(1) if case.l is None else x
    y = causal_conv1d_update(given_x, state, weight, bias, case.activation, backend=backend)
    assert_close(y, expected.squeeze(1) if case.l is None else expected, 1e-12)
    assert torch.equal(state, final)


@pytest.mark.parametrize("backend", BACKENDS)
@examples
@given(case=cases, pieces=st.lists(st.integers(0, 9), min_size=1, max_size=6))
def test_ring_in_pieces_is_one_whole_sequence(case: Case, backend: str, pieces: list[int]) -> None:
    """Sequences that started at different times share a call; every slot ends up as it should."""
    torch.manual_seed(case.seed)
    b, d, s = case.b, case.d, case.s
    x = torch.randn(b, sum(pieces), d, dtype=torch.float64)
    weight = torch.randn(d, case.k, dtype=torch.float64)
    expected = causal_conv1d_reference(x, weight, None, case.activation)
    state = torch.zeros(b, d, s, dtype=torch.float64)
    ys, seen = [x[:, :0]], torch.zeros(b, dtype=torch.int32)
    for piece in x.split(pieces, dim=1):
        ys.append(
            causal_conv1d_update(
                piece,
                state,
                weight,
                activation=case.activation,
                cache_seqlens=seen,
                backend=backend,
            )
        )
        seen += piece.shape[1]
    assert_close(torch.cat(ys, 1), expected, 1e-12)
    total = sum(pieces)
    for t in range(max(0, total - s), total):
        assert torch.equal(state[:, :, t % s], x[:, t])


@pytest.mark.parametrize("backend", BACKENDS)
def test_shift_and_ring_by_hand(backend: str) -> None:
    def update(state: list[float], count: list[int] | None) -> tuple[float, list[float]]:
        kept = torch.tensor([[state]], dtype=torch.float32)
        counts = None if count is None else torch.tensor(count, dtype=torch.int32)
        weight = torch.tensor([[100.0, 10.0, 1.0]])
        y = causal_conv1d_update(
            torch.tensor([[5.0]]), kept, weight, cache_seqlens=counts, backend=backend
        )
        return y.item(), kept.flatten().tolist()

    assert update([2, 3], None) == (235, [3, 5])
    assert update([1, 2, 3, 4], None) == (345, [2, 3, 4, 5])
    assert update([1, 2, 3, 4], [6]) == (125, [1, 2, 5, 4])
    assert update([1, 2, 3, 4], [4]) == (345, [5, 2, 3, 4])
    assert update([0, 0, 0, 0], [0]) == (5, [5, 0, 0, 0])
