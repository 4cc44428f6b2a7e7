"""The CUDA kernels of the scan's backward pass, simulated on the host, against a float64 loop.

The states that the forward pass keeps come from the CPU kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from native_scan_cases import (
    GRADIENT_ERROR,
    LAYOUTS,
    Case,
    Mode,
    error,
    expected_gradients,
    make_case,
)
from torch import Tensor

from ssm_kernels import native, native_extension

pytestmark = pytest.mark.usefixtures("simulated")
few = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def checkpoints_of(case: Case, mode: Mode, offsets: Tensor | None = None) -> Tensor:
    simulated = native_extension._on_host
    native_extension._on_host = native_extension._native
    try:
        kept = native.selective_scan_forward(
            *case.tensors(), mode=mode.native(), save_for_backward=True, offsets=offsets
        )[2]
    finally:
        native_extension._on_host = simulated
    assert kept is not None
    return kept


def gradients(
    case: Case,
    mode: Mode,
    grad_y: Tensor,
    grad_state: Tensor | None = None,
    offsets: Tensor | None = None,
) -> dict[str, Tensor | None]:
    found = native.selective_scan_backward(
        grad_y,
        grad_state,
        *case.tensors(),
        checkpoints_of(case, mode, offsets),
        mode=mode.native(),
        need_initial_state_grad=case.initial_state is not None,
        offsets=offsets,
    )
    return dict(zip((field.name for field in fields(case)), found, strict=True))


def check(case: Case, mode: Mode, *, with_state: bool = True, times: float = 2.0) -> None:
    b, _, d = case.u.shape
    dtype = case.u.dtype
    grad_y = torch.randn(case.u.shape, dtype=torch.float64).to(dtype)
    state_shape = (b, d, case.A.shape[1])
    grad_state = torch.randn(state_shape, dtype=case.A.dtype) if with_state else None
    got = gradients(case, mode, grad_y, grad_state)
    for name, expected in expected_gradients(case, mode, grad_y, grad_state).items():
        value = got[name]
        if expected is None or value is None:
            assert value is expected, name
            continue
        assert value.dtype == getattr(case, name).dtype
        stored = value.dtype.to_real()
        allowed = GRADIENT_ERROR[stored] * (times if stored.itemsize > 2 else 1)
        assert error(value, expected) <= allowed, name


# The last: so many sequences that several threads share the sum over them.
SIZES = [(2, 1, 1, 1), (1, 31, 3, 2), (2, 33, 33, 3), (1, 70, 40, 5), (37, 3, 5, 3)]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_match_the_loop(sizes: tuple[int, int, int, int], dtype: torch.dtype) -> None:
    check(make_case(sizes, dtype=dtype), Mode())
    check(make_case(sizes, dtype=dtype, optional=False), Mode(reverse=True), with_state=False)


@pytest.mark.parametrize("sizes", [(0, 5, 4, 3), (2, 0, 4, 3), (2, 5, 0, 3), (2, 5, 4, 0)])
@pytest.mark.parametrize("constant", ["", "BC"])
def test_empty_axes(sizes: tuple[int, int, int, int], constant: str) -> None:
    check(make_case(sizes, constant=constant), Mode())


@few
@given(
    sizes=st.tuples(st.integers(1, 2), st.integers(0, 40), st.integers(1, 9), st.integers(1, 9)),
    groups=st.sampled_from([1, 2, 3]),
    dtype=st.sampled_from(sorted(GRADIENT_ERROR, key=str)),
    constant=st.sampled_from(["", "B", "C", "BC"]),
    complex_A=st.booleans(),
    optional=st.booleans(),
    mode=st.builds(Mode, delta_softplus=st.booleans(), reverse=st.booleans()),
    seed=st.integers(0, 2**31),
)
def test_any_shape_type_and_option(
    sizes: tuple[int, int, int, int],
    groups: int,
    dtype: torch.dtype,
    constant: str,
    complex_A: bool,
    optional: bool,
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
        complex_A=complex_A,
    )
    if not mode.delta_softplus:  # a step size is positive; otherwise the states would explode
        case = replace(case, delta=case.delta.abs() * 0.3, delta_bias=None)
    check(case, mode, times=4)  # sums that cancel


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 8, 12, 16, 24, 32, 33, 64])
@pytest.mark.parametrize("gated", [False, True])
def test_every_number_of_states(n: int, gated: bool) -> None:
    case = make_case((1, 37, 11, n))
    check(case if gated else replace(case, z=None), Mode())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layouts_change_no_bit(layout: Callable[[Tensor], Tensor], dtype: torch.dtype) -> None:
    case = make_case((2, 45, 19, 5), dtype=dtype)
    moved = replace(
        case, **{name: layout(getattr(case, name)) for name in ("u", "delta", "z", "B", "C")}
    )
    grad_y = torch.randn(case.u.shape).to(dtype)
    expected = gradients(case, Mode(), grad_y)
    got = gradients(moved, Mode(), layout(grad_y))
    for name, value in expected.items():
        assert value is None or torch.equal(got[name], value), name


@pytest.mark.parametrize("n", [5, 70])  # a kernel with lanes, and the general one
@pytest.mark.parametrize("reverse", [False, True])
def test_packed_sequences_are_separate_scans(n: int, reverse: bool) -> None:
    lengths = [5, 0, 33, 1, 31]
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    case = make_case((1, 70, 9, n))
    case = replace(case, initial_state=torch.randn(5, 9, n))
    mode, grad_y, grad_state = Mode(reverse=reverse), torch.randn(1, 70, 9), torch.randn(5, 9, n)
    got = gradients(case, mode, grad_y, grad_state, offsets)
    sums = {name: torch.zeros_like(got[name]) for name in ("A", "D", "delta_bias")}
    for row, length in enumerate(lengths):
        steps = slice(int(offsets[row]), int(offsets[row]) + length)
        parts = {name: getattr(case, name)[:, steps] for name in ("u", "delta", "z", "B", "C")}
        alone = replace(case, **parts, initial_state=case.initial_state[row : row + 1])
        expected = gradients(alone, mode, grad_y[:, steps], grad_state[row : row + 1])
        for name in parts:
            assert torch.equal(got[name][:, steps], expected[name]), name
        assert torch.equal(got["initial_state"][row], expected["initial_state"][0])
        for name in sums:
            sums[name] += expected[name]
    for name, total in sums.items():
        assert error(got[name], total) <= 1e-6, name


@pytest.mark.parametrize("n", [3, 70])
def test_offsets_without_sense_stay_in_the_tensor(n: int) -> None:
    case = make_case((1, 20, 4, n), optional=False)
    kept = torch.zeros(3 * n * 4)
    offsets = torch.tensor([-50, 10**12, 3, 7])
    native.selective_scan_backward(
        torch.randn(1, 20, 4),
        None,
        *case.tensors(),
        kept,
        mode=Mode().native(),
        need_initial_state_grad=False,
        offsets=offsets,
    )
    assert case.u.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("columns", [0, 7, 11])
def test_columns_and_sums_with_what_is_there(dtype: torch.dtype, columns: int) -> None:
    case, mode = make_case((2, 77, 9, 6), dtype=dtype), Mode(columns=columns)
    grad_y = torch.randn(2, 77, 9).to(dtype)
    alone = gradients(case, mode, grad_y)
    before = torch.randn(2, 77, 9)
    into = native.ScanGradients(u=before.clone(), z=before.clone())
    native.selective_scan_backward(
        grad_y,
        None,
        *case.tensors(),
        checkpoints_of(case, mode),
        mode=mode.native(),
        need_initial_state_grad=True,
        into=into,
        add=(True, True),
    )
    limit = 2e-6 if dtype == torch.float32 else 4e-3
    assert error(into.u - before, alone["u"].float()) <= limit
    assert error(into.z - before, alone["z"].float()) <= limit
    if columns == 0:
        return

    def turned(t: Tensor) -> Tensor:
        return t.unflatten(1, (-1, columns)).transpose(1, 2).flatten(1, 2)

    over_steps = ("u", "delta", "z", "B", "C")
    image = replace(case, **{name: turned(getattr(case, name)) for name in over_steps})
    expected = gradients(image, Mode(), turned(grad_y))
    for name, value in expected.items():
        got = turned(alone[name]) if name in over_steps else alone[name]
        assert torch.equal(got, value), name


@pytest.mark.parametrize("n", [2, 16, 40, 70])
def test_same_bits_every_time(n: int) -> None:
    case = make_case((2, 33, 40, n), dtype=torch.bfloat16)
    grad_y = torch.randn(2, 33, 40).to(torch.bfloat16)
    first, second = (gradients(case, Mode(), grad_y) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("n", [4, 20])
def test_bad_numbers_stay_in_their_channel(bad: float, n: int) -> None:
    case = make_case((2, 50, 40, n))
    clean = gradients(case, Mode(), torch.ones(2, 50, 40))
    u = case.u.clone()
    u[1, 20, 7] = bad
    got = gradients(replace(case, u=u), Mode(), torch.ones(2, 50, 40))
    assert got["A"][7].isnan().any()
    others = torch.arange(40) != 7
    for name in ("u", "delta", "z"):
        assert torch.equal(got[name][..., others], clean[name][..., others]), name
    for name in ("A", "D", "delta_bias"):
        assert torch.equal(got[name][others], clean[name][others]), name
    assert got["B"][0].isfinite().all()


def test_offsets_above_two_to_the_31() -> None:
    stride = 2**31 + 64
    pages = torch.empty(stride + 4096, dtype=torch.bfloat16)  # only two pages are touched
    small = make_case((2, 9, 20, 3), dtype=torch.bfloat16)
    grad_y = torch.randn(2, 9, 20).to(torch.bfloat16)
    far = pages.as_strided((2, 9, 20), (stride, 20, 1))
    far.copy_(small.u)
    got, expected = (gradients(c, Mode(), grad_y) for c in (replace(small, u=far), small))
    assert all(torch.equal(got[name], expected[name]) for name in expected)
    # Steps that far apart are left to the general kernel.
    far = pages.as_strided((1, 2, 20), (0, stride, 1))
    apart = replace(make_case((1, 2, 20, 3), dtype=torch.bfloat16), u=far)
    near = replace(apart, u=far.clone())
    got, expected = (gradients(c, Mode(), grad_y[:1, :2]) for c in (apart, near))
    assert all(error(got[name], expected[name]) <= 5e-3 for name in expected)
