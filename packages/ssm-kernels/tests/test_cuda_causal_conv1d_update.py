"""The CUDA convolution of new samples, simulated on the host."""

from __future__ import annotations

import pytest
import test_causal_conv1d_update as operator
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_cases import DTYPES, assert_same_special_values

from ssm_kernels import causal_conv1d_update, causal_conv1d_update_reference

simulations = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
assert_rings_continue = operator.test_ring_in_pieces_is_one_whole_sequence.hypothesis.inner_test
assert_by_hand = operator.test_shift_and_ring_by_hand
pytestmark = pytest.mark.usefixtures("simulated")


@simulations
@given(case=operator.cases, dtype=st.sampled_from(DTYPES), state_dtype=st.sampled_from(DTYPES))
def test_values(case: operator.Case, dtype: torch.dtype, state_dtype: torch.dtype) -> None:
    operator.check(case, dtype, state_dtype, "auto")


@simulations
@given(case=operator.cases, pieces=st.lists(st.integers(0, 9), min_size=1, max_size=6))
def test_ring_in_pieces(case: operator.Case, pieces: list[int]) -> None:
    assert_rings_continue(case, "auto", pieces)


def test_shift_and_ring_by_hand() -> None:
    assert_by_hand("auto")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("argument", ["x", "conv_state", "weight", "bias"])
@pytest.mark.parametrize("width", [3, 8])
def test_special_values_stay_where_they_belong(argument: str, value: float, width: int) -> None:
    """An infinite sample that no tap meets any more leaves no trace."""
    arguments = {
        "x": torch.randn(2, 5, 9),
        "conv_state": torch.randn(2, 9, 8),
        "weight": torch.randn(9, width),
        "bias": torch.randn(9),
    }
    changed = arguments[argument].view(-1)
    changed[changed.numel() // 2] = value
    wide = {name: tensor.double() for name, tensor in arguments.items()}
    expected = causal_conv1d_update_reference(**wide, activation="silu")
    y = causal_conv1d_update(**arguments, activation="silu")
    assert_same_special_values(y, expected, "y")
    assert_same_special_values(arguments["conv_state"], wide["conv_state"], "state")


def test_bits_do_not_change() -> None:
    x, state, weight = torch.randn(3, 4, 130), torch.randn(3, 130, 6), torch.randn(130, 4)
    runs = []
    for _ in range(2):
        kept = state.clone()
        runs.append((causal_conv1d_update(x, kept, weight, activation="silu"), kept))
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
