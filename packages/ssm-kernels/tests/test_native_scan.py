"""The compiled selective scan against a float64 loop: values, gradients, layouts, determinism."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from native_scan_cases import (
    LAYOUTS,
    VALUE_ERROR,
    Case,
    Mode,
    check,
    error,
    expected_gradients,
    expected_scan,
    make_case,
    native_gradients,
    native_scan,
)
from torch import Tensor

from ssm_kernels import native

pytestmark = pytest.mark.skipif(not native.AVAILABLE, reason=f"not built: {native.IMPORT_ERROR}")
ISAS = native.available_isas() if native.AVAILABLE else []


@pytest.mark.parametrize("steps", [1, 2, 31, 33, 70])
@pytest.mark.parametrize(("d", "n"), [(1, 1), (5, 3), (16, 16), (17, 17), (40, 16)])
def test_every_isa_matches_the_loop(isa: str, d: int, n: int, steps: int) -> None:
    check(make_case((2, steps, d, n)), Mode())
    check(make_case((1, steps, d, n), optional=False), Mode(reverse=True), with_state=False)


@pytest.mark.parametrize("sizes", [(2, 49, 64, 16), (4, 197, 32, 16)])
def test_errors_at_ordinary_inputs(isa: str, sizes: tuple[int, int, int, int]) -> None:
    b, l, d, n = sizes
    case = make_case(sizes)
    steps = torch.exp(torch.empty(b, l, d).uniform_(-6.9, -2.3))  # 1e-3 to 1e-1
    case = replace(
        case, delta=steps, A=-torch.arange(1.0, n + 1).expand(d, n), z=None, delta_bias=None
    )
    mode = Mode(delta_softplus=False)
    assert error(native_scan(case, mode)[0], expected_scan(case, mode)[0]) <= 5e-7
    grad_y = torch.randn(b, l, d)
    got = native_gradients(case, mode, grad_y, None)
    for name, expected in expected_gradients(case, mode, grad_y, None).items():
        assert expected is None or error(got[name], expected) <= 2e-6, name


@settings(max_examples=30, deadline=None)
@given(
    isa=st.sampled_from(ISAS or ["none"]),
    sizes=st.tuples(st.integers(1, 3), st.integers(0, 70), st.integers(1, 20), st.integers(0, 19)),
    groups=st.sampled_from([1, 2, 3]),
    dtype=st.sampled_from(sorted(VALUE_ERROR, key=str)),
    constant=st.sampled_from(["", "B", "C", "BC"]),
    optional=st.booleans(),
    mode=st.builds(Mode, delta_softplus=st.booleans(), reverse=st.booleans()),
    seed=st.integers(0, 2**31),
)
def test_any_shape_type_and_option(
    isa: str,
    sizes: tuple[int, int, int, int],
    groups: int,
    dtype: torch.dtype,
    constant: str,
    optional: bool,
    mode: Mode,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    b, l, d, n = sizes
    case = make_case(
        (b, l, d * groups, n), groups=groups, dtype=dtype, constant=constant, optional=optional
    )
    if not mode.delta_softplus:  # a step size is positive; otherwise the states would explode
        case = replace(case, delta=case.delta.abs() * 0.3, delta_bias=None)
    before = native.isa()
    native.set_isa(isa)
    try:
        check(case, mode, times=3)  # sums that cancel
    finally:
        native.set_isa(before)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_change_nothing(
    isa: str, layout: Callable[[Tensor], Tensor], dtype: torch.dtype, reverse: bool
) -> None:
    case = make_case((2, 49, 37, 5), dtype=dtype)
    moved = replace(
        case, **{name: layout(getattr(case, name)) for name in ("u", "delta", "z", "B", "C")}
    )
    mode = Mode(reverse=reverse)
    for got, expected in zip(native_scan(moved, mode), native_scan(case, mode), strict=True):
        assert torch.equal(got, expected)
    grad_y = torch.randn(case.u.shape).to(dtype)
    expected = native_gradients(case, mode, grad_y, None)
    got = native_gradients(moved, mode, layout(grad_y), None)
    assert all(torch.equal(got[name], expected[name]) for name in expected)


def negated_lazily(x: Tensor) -> Tensor:
    """The same values, by a view whose negation is pending."""
    made = torch.complex(torch.zeros_like(x), -x).conj().imag
    assert made.is_neg()
    return made


def test_pending_negations_are_carried_out() -> None:
    case = make_case((2, 40, 17, 3))
    moved = Case(*(None if t is None else negated_lazily(t) for t in case.tensors()))
    for got, expected in zip(native_scan(moved, Mode()), native_scan(case, Mode()), strict=True):
        assert torch.equal(got, expected)
    grad_y = torch.randn(case.u.shape)
    expected = native_gradients(case, Mode(), grad_y, None)
    got = native_gradients(moved, Mode(), negated_lazily(grad_y), None)
    assert all(torch.equal(got[name], expected[name]) for name in expected)


def test_expanded_inputs(isa: str) -> None:
    case = make_case((2, 40, 33, 4))
    case = replace(
        case,
        u=case.u[:, :1].expand(2, 40, 33),
        delta=case.delta[..., :1].expand(2, 40, 33),
        B=case.B[:1].expand(2, 40, 1, 4),
        C=case.C[..., :1].expand(2, 40, 1, 4),
    )
    y, state, _ = native_scan(case, Mode())
    expected_y, expected_state = expected_scan(case, Mode())
    assert error(y, expected_y) <= VALUE_ERROR[torch.float32]
    assert error(state, expected_state) <= VALUE_ERROR[torch.float32]


@pytest.mark.parametrize("sizes", [(0, 5, 4, 3), (2, 0, 4, 3), (2, 5, 0, 3), (2, 5, 4, 0)])
@pytest.mark.parametrize("constant", ["", "BC"])
def test_empty_axes(isa: str, sizes: tuple[int, int, int, int], constant: str) -> None:
    case = make_case(sizes, constant=constant)
    check(case, Mode())
    if sizes[1] == 0:
        assert torch.equal(native_scan(case, Mode())[1], case.initial_state)


@pytest.mark.parametrize("reverse", [False, True])
def test_parts_continue_from_the_final_state(isa: str, reverse: bool) -> None:
    case, mode = make_case((2, 75, 20, 6)), Mode(reverse=reverse)
    whole_y, whole_state, _ = native_scan(case, mode)

    def part(steps: slice, state: Tensor | None) -> Case:
        cut = {name: getattr(case, name)[:, steps] for name in ("u", "delta", "z", "B", "C")}
        return replace(case, **cut, initial_state=state)

    order = [slice(0, 41), slice(41, 75)]
    state, pieces = case.initial_state, {}
    for steps in reversed(order) if reverse else order:
        pieces[steps.start], state, _ = native_scan(part(steps, state), mode)
    assert torch.equal(torch.cat([pieces[0], pieces[41]], 1), whole_y)
    assert torch.equal(state, whole_state)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("constant", ["", "BC"])
def test_bits_do_not_depend_on_the_number_of_threads(
    isa: str, constant: str, dtype: torch.dtype
) -> None:
    case = make_case((3, 70, 112, 9), groups=1, dtype=dtype, constant=constant)
    grad_y, grad_state = torch.randn(case.u.shape).to(dtype), torch.randn(3, 112, 9)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            y, state, _ = native_scan(case, Mode())
            gradients = native_gradients(case, Mode(), grad_y, grad_state)
            results.append([y, state, *gradients.values()])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_bad_numbers_stay_in_their_channel(isa: str, bad: float) -> None:
    case = make_case((2, 50, 24, 4))
    clean = native_scan(case, Mode())[0]
    u = case.u.clone()
    u[1, 20, 7] = bad
    y, state, _ = native_scan(replace(case, u=u), Mode())
    assert not y[1, 20:30, 7].isfinite().any()
    assert not state[1, 7].isfinite().any()
    same = torch.ones_like(y, dtype=torch.bool)
    same[1, 20:, 7] = False
    assert torch.equal(y[same], clean[same])
    gradients = native_gradients(replace(case, u=u), Mode(), torch.ones_like(u), None)
    assert gradients["A"][7].isnan().any()
    assert gradients["A"][8].isfinite().all()


def test_slow_states_stay_accurate_over_a_long_sequence(isa: str) -> None:
    case = make_case((1, 16384, 2, 2), optional=False)
    slow = torch.tensor([[-1e-3, -1e-2], [-1e-4, -1.0]])
    case = replace(case, A=slow, delta=case.delta.abs() * 0.1)
    mode = Mode(delta_softplus=False)
    assert error(native_scan(case, mode)[0], expected_scan(case, mode)[0]) <= 5e-6


def test_offsets_above_two_to_the_31(isa: str) -> None:
    stride = 2**31 + 64
    pages = torch.empty(stride + 4096, dtype=torch.bfloat16)  # only two pages are touched
    small = make_case((2, 9, 20, 3), dtype=torch.bfloat16)
    far = pages.as_strided((2, 9, 20), (stride, 20, 1))
    far.copy_(small.u)
    assert torch.equal(native_scan(replace(small, u=far), Mode())[0], native_scan(small, Mode())[0])
