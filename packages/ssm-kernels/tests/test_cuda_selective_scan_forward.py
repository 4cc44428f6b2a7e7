"""The CUDA selective scan, forward, simulated on the host, against a float64 loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from native_scan_cases import (
    LAYOUTS,
    VALUE_ERROR,
    Case,
    Mode,
    error,
    expected_scan,
    make_case,
    native_scan,
)
from torch import Tensor

pytestmark = pytest.mark.usefixtures("simulated")

# The simulator takes the place of the kernels for the whole test; its state does not change.
property_of_kernels = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
NAMES = ("u", "delta", "z", "B", "C")


def part(case: Case, steps: slice) -> Case:
    def cut(name: str) -> Tensor | None:
        tensor = getattr(case, name)
        return tensor if tensor is None or tensor.dim() == 2 else tensor[:, steps]

    return replace(case, **{name: cut(name) for name in NAMES})


def check_checkpoints(case: Case, mode: Mode, kept: Tensor) -> None:
    """The state before every 32nd step."""
    b, l, d = case.u.shape
    if kept.numel() == 0:
        return
    chunks = kept.view(b, (l + 31) // 32, -1, d)
    for k in range(chunks.shape[1]):
        steps = slice(l - 32 * k, l) if mode.reverse else slice(0, 32 * k)
        state = expected_scan(part(case, steps), mode)[1]
        numbers = torch.view_as_real(state).flatten(-2) if state.is_complex() else state
        assert error(chunks[:, k].mT, numbers) <= 3e-5


def check(case: Case, mode: Mode, times: float = 3) -> None:
    y, state, kept = native_scan(case, mode)
    expected_y, expected_state = expected_scan(case, mode)
    dtype = case.u.dtype
    scale = times if dtype.itemsize > 2 else 1
    assert y.dtype == dtype
    assert error(y, expected_y) <= VALUE_ERROR[dtype] * scale
    assert error(state, expected_state) <= VALUE_ERROR[state.dtype.to_real()] * times
    check_checkpoints(case, mode, kept)


@property_of_kernels
@given(
    sizes=st.tuples(st.integers(1, 3), st.integers(0, 70), st.integers(1, 20), st.integers(0, 19)),
    groups=st.sampled_from([1, 2, 3]),
    dtype=st.sampled_from(sorted(VALUE_ERROR, key=str)),
    constant=st.sampled_from(["", "", "B", "C", "BC"]),
    optional=st.booleans(),
    is_complex=st.booleans(),
    mode=st.builds(Mode, delta_softplus=st.booleans(), reverse=st.booleans()),
    seed=st.integers(0, 2**31),
)
def test_any_shape_type_and_option(
    sizes: tuple[int, int, int, int],
    groups: int,
    dtype: torch.dtype,
    constant: str,
    optional: bool,
    is_complex: bool,
    mode: Mode,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    b, l, d, n = sizes
    case = make_case(
        (b, l, d * groups, n),
        groups=groups,
        dtype=dtype,
        constant=constant,
        optional=optional,
        complex_A=is_complex,
    )
    if not mode.delta_softplus:  # a step size is positive; otherwise the states would explode
        case = replace(case, delta=case.delta.abs() * 0.3, delta_bias=None)
    check(case, mode, times=50 if is_complex else 5)


@property_of_kernels
@given(
    sizes=st.tuples(st.integers(1, 2), st.integers(0, 70), st.sampled_from([16, 40, 96])),
    n=st.sampled_from([1, 2, 3, 4, 8, 12, 16, 32, 64]),
    groups=st.sampled_from([1, 1, 2]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    optional=st.booleans(),
    mode=st.builds(Mode, reverse=st.booleans()),
    layout=st.sampled_from([lambda t: t, *LAYOUTS]),
    seed=st.integers(0, 2**31),
)
def test_tiled_shapes(
    sizes: tuple[int, int, int],
    n: int,
    groups: int,
    dtype: torch.dtype,
    optional: bool,
    mode: Mode,
    layout: Callable[[Tensor], Tensor],
    seed: int,
) -> None:
    torch.manual_seed(seed)
    case = make_case((*sizes, n), groups=groups, dtype=dtype, optional=optional)
    moved = {name: layout(getattr(case, name)) for name in NAMES if optional or name != "z"}
    check(replace(case, **moved), mode, times=5)


@pytest.mark.parametrize("sizes", [(0, 5, 4, 3), (2, 0, 4, 3), (2, 5, 0, 3), (2, 5, 4, 0)])
@pytest.mark.parametrize("constant", ["", "BC"])
def test_empty_axes(sizes: tuple[int, int, int, int], constant: str) -> None:
    case = make_case(sizes, constant=constant)
    check(case, Mode())
    if sizes[1] == 0:
        assert torch.equal(native_scan(case, Mode())[1], case.initial_state)
