"""The CUDA decode step of the scan, simulated on the host."""

from __future__ import annotations

from dataclasses import replace

import pytest
import test_selective_state_update as operator
import test_update_limits as limits
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_cases import DTYPES, TOLERANCE, assert_close, assert_same_special_values
from torch import Tensor
from update_cases import copied

from ssm_kernels import selective_state_update, selective_state_update_reference

simulations = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
assert_expanded_works = operator.test_one_number_per_head_may_be_expanded
pytestmark = pytest.mark.usefixtures("simulated")


def small(case: operator.Case) -> operator.Case:
    return replace(case, b=min(case.b, 2), heads=min(case.heads, 24))


@simulations
@given(
    case=operator.cases().map(small),
    dtype=st.sampled_from(DTYPES),
    state_dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_values(case: operator.Case, dtype: torch.dtype, state_dtype: torch.dtype) -> None:
    operator.check(case, dtype, state_dtype, "auto")


@simulations
@given(
    case=operator.cases(is_complex=False).map(small),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    state_dtype=st.sampled_from(DTYPES),
)
def test_state_types(case: operator.Case, dtype: torch.dtype, state_dtype: torch.dtype) -> None:
    operator.check(case, dtype, state_dtype, "auto")


@pytest.mark.parametrize("state_dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("n", [4, 16, 24, 160])
@pytest.mark.parametrize("one_decay", [False, True])
def test_vectors_of_every_type(
    dtype: torch.dtype, state_dtype: torch.dtype, n: int, one_decay: bool
) -> None:
    """Aligned states; B and C as slices of a projection's rows."""
    b, h, p, g = 2, 2, 5, 2
    state = torch.randn(b, h, p, n).to(state_dtype)
    A = -torch.rand(h, p, 1).expand(h, p, n) if one_decay else -torch.rand(h, p, n)
    rows = torch.randn(b, 8 + 2 * g * n).to(dtype)
    B, C = rows[:, 8 : 8 + g * n].view(b, g, n), rows[:, 8 + g * n :].view(b, g, n)
    x, dt, z = (torch.randn(b, h, p).to(dtype) for _ in range(3))
    D, bias = torch.randn(h, p), torch.rand(h, p)
    wide = state.double()
    expected = selective_state_update_reference(
        wide, *(t.double() for t in (x, dt, A, B, C, D, z, bias)), True
    )
    y = selective_state_update(state, x, dt, A, B, C, D, z, bias, True)
    assert_close(y, expected, TOLERANCE[dtype], "y")
    assert_close(state, wide, TOLERANCE[state_dtype], "state")


def test_one_number_per_head_may_be_expanded() -> None:
    assert_expanded_works("auto", torch.bfloat16)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("n", [20, 21])
def test_special_values_spread_as_in_the_reference(value: float, n: int) -> None:
    for argument in limits.step_arguments():
        arguments = limits.step_arguments(n=n)
        changed = arguments[argument]
        changed[(-1,) * changed.dim()] = value
        expected = {name: tensor.double() for name, tensor in arguments.items()}
        wide = selective_state_update_reference(**expected, dt_softplus=True)
        y = selective_state_update(**arguments, dt_softplus=True)
        assert_same_special_values(y, wide, f"y after {argument}")
        assert_same_special_values(arguments["state"], expected["state"], f"state, {argument}")


@pytest.mark.parametrize("angle", [0.7, 50.0, 4e4, 1e7])
def test_complex_angles(angle: float) -> None:
    """The angle dt A is not rounded to float32, where its last bit would be a turn."""
    arguments = limits.step_arguments(is_complex=True)
    del arguments["dt_bias"]
    arguments["A"].imag *= angle
    arguments["dt"].abs_()
    wide = operator.widened(arguments)
    expected = selective_state_update_reference(**wide)
    assert_close(selective_state_update(**arguments), expected, 1e-5)
    assert_close(arguments["state"], wide["state"], 1e-5)


def test_bits_do_not_change() -> None:
    arguments = limits.step_arguments(n=40)

    def run() -> tuple[Tensor, Tensor]:
        own = {name: copied(tensor) for name, tensor in arguments.items()}
        return selective_state_update(**own, dt_softplus=True), own["state"]

    assert all(torch.equal(a, b) for a, b in zip(run(), run(), strict=True))
