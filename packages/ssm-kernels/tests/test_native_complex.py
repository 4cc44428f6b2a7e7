"""The compiled selective scan with complex A against a complex128 loop."""

from __future__ import annotations

import os
import subprocess
import sys
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

from ssm_kernels import native, selective_scan

pytestmark = pytest.mark.skipif(not native.AVAILABLE, reason=f"not built: {native.IMPORT_ERROR}")
ISAS = native.available_isas() if native.AVAILABLE else []

# The angle delta Im(A) is rounded before its sine is taken: an error of 6e-8 per radian in float32.
# The random cases here reach 30 radians a step.
ERROR_TIMES = 10.0
NAMES = ("u", "delta", "z", "B", "C")


@pytest.mark.parametrize("steps", [0, 1, 2, 31, 33, 70])
@pytest.mark.parametrize(("d", "n"), [(1, 1), (5, 3), (16, 16), (17, 3), (40, 4)])
def test_every_isa_matches_the_loop(isa: str, d: int, n: int, steps: int) -> None:
    check(make_case((2, steps, d, n), complex_A=True), Mode(), times=ERROR_TIMES)
    case = make_case((1, steps, d, n), complex_A=True, optional=False)
    case = replace(case, delta=case.delta.abs() * 0.3)
    mode = Mode(delta_softplus=False, reverse=True)
    check(case, mode, with_state=False, times=ERROR_TIMES)


@pytest.mark.parametrize("sizes", [(2, 49, 64, 16), (4, 197, 32, 16)])
def test_errors_at_ordinary_inputs(isa: str, sizes: tuple[int, int, int, int]) -> None:
    b, l, d, n = sizes
    case = make_case(sizes, complex_A=True)
    steps = torch.exp(torch.empty(b, l, d).uniform_(-6.9, -2.3))  # 1e-3 to 1e-1
    A = torch.complex(torch.full((n,), -0.5), torch.pi * torch.arange(n)).expand(d, n)  # S4D-Lin
    case = replace(case, delta=steps, A=A, z=None, delta_bias=None)
    mode = Mode(delta_softplus=False)
    assert error(native_scan(case, mode)[0], expected_scan(case, mode)[0]) <= 1e-6
    grad_y = torch.randn(b, l, d)
    got = native_gradients(case, mode, grad_y, None)
    for name, expected in expected_gradients(case, mode, grad_y, None).items():
        assert expected is None or error(got[name], expected) <= 5e-6, name


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
    sizes = (b, l, d * groups, n)
    case = make_case(
        sizes, groups=groups, dtype=dtype, constant=constant, optional=optional, complex_A=True
    )
    if not mode.delta_softplus:  # a step size is positive; otherwise the states would explode
        case = replace(case, delta=case.delta.abs() * 0.3, delta_bias=None)
    before = native.isa()
    native.set_isa(isa)
    try:
        check(case, mode, times=50)  # sums that cancel; float64 still has to reach 2.5e-12
    finally:
        native.set_isa(before)


@pytest.mark.parametrize("sizes", [(0, 5, 4, 3), (2, 0, 4, 3), (2, 5, 0, 3), (2, 5, 4, 0)])
@pytest.mark.parametrize("constant", ["", "BC"])
def test_empty_axes(isa: str, sizes: tuple[int, int, int, int], constant: str) -> None:
    case = make_case(sizes, constant=constant, complex_A=True)
    check(case, Mode())
    if sizes[1] == 0:
        assert torch.equal(native_scan(case, Mode())[1], case.initial_state)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_change_nothing(
    isa: str, layout: Callable[[Tensor], Tensor], dtype: torch.dtype, reverse: bool
) -> None:
    case = make_case((2, 49, 37, 5), dtype=dtype, complex_A=True)
    moved = replace(case, **{name: layout(getattr(case, name)) for name in NAMES})
    mode = Mode(reverse=reverse)
    for got, expected in zip(native_scan(moved, mode), native_scan(case, mode), strict=True):
        assert torch.equal(got, expected)
    grad_y = torch.randn(case.u.shape).to(dtype)
    expected = native_gradients(case, mode, grad_y, None)
    got = native_gradients(moved, mode, layout(grad_y), None)
    assert all(torch.equal(got[name], expected[name]) for name in expected)


@pytest.mark.parametrize("constant", ["", "BC"])
def test_lazy_conjugates_and_negatives_are_carried_out(constant: str) -> None:
    case = make_case((2, 40, 17, 3), constant=constant, complex_A=True)

    def lazy(x: Tensor) -> Tensor:  # the same values, by a view that is conjugated or negated
        if x.is_complex():
            made = x.conj_physical().conj()
            assert made.is_conj()
        else:
            made = torch.complex(torch.zeros_like(x), -x).conj().imag
            assert made.is_neg()
        return made

    moved = Case(*(None if t is None else lazy(t) for t in case.tensors()))
    for got, expected in zip(native_scan(moved, Mode()), native_scan(case, Mode()), strict=True):
        assert torch.equal(got, expected)
    grad_y, grad_state = torch.randn(case.u.shape), torch.randn(2, 17, 3, dtype=torch.complex64)
    expected = native_gradients(case, Mode(), grad_y, grad_state)
    got = native_gradients(moved, Mode(), lazy(grad_y), lazy(grad_state))
    assert all(torch.equal(got[name], expected[name]) for name in expected)


@pytest.mark.parametrize("constant", ["", "BC"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bits_do_not_depend_on_the_number_of_threads(
    isa: str, constant: str, dtype: torch.dtype
) -> None:
    case = make_case((3, 70, 112, 9), dtype=dtype, constant=constant, complex_A=True)
    grad_y = torch.randn(case.u.shape).to(dtype)
    grad_state = torch.randn(3, 112, 9, dtype=torch.complex64)
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


@pytest.mark.parametrize("reverse", [False, True])
def test_parts_continue_from_the_final_state(isa: str, reverse: bool) -> None:
    case, mode = make_case((2, 75, 20, 6), complex_A=True), Mode(reverse=reverse)
    whole_y, whole_state, _ = native_scan(case, mode)
    state, pieces = case.initial_state, {}
    order = [slice(0, 41), slice(41, 75)]
    for steps in reversed(order) if reverse else order:
        cut = {name: getattr(case, name)[:, steps] for name in NAMES}
        part = replace(case, **cut, initial_state=state)
        pieces[steps.start], state, _ = native_scan(part, mode)
    assert torch.equal(torch.cat([pieces[0], pieces[41]], 1), whole_y)
    assert torch.equal(state, whole_state)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["u", "delta"])
def test_bad_numbers_stay_in_their_channel(isa: str, name: str, bad: float) -> None:
    case, mode = make_case((2, 50, 24, 4), complex_A=True), Mode(delta_softplus=False)
    case = replace(case, delta=case.delta.abs() * 0.1, delta_bias=None)
    clean = native_scan(case, mode)[0]
    values = getattr(case, name).clone()
    values[1, 20, 7] = bad
    spoilt = replace(case, **{name: values})
    y, state, _ = native_scan(spoilt, mode)
    assert not y[1, 20:30, 7].isfinite().any()
    assert not state[1, 7].isfinite().any()
    same = torch.ones_like(y, dtype=torch.bool)
    same[1, 20:, 7] = False
    assert torch.equal(y[same], clean[same])
    gradients = native_gradients(spoilt, mode, torch.ones_like(y), None)
    assert gradients["A"][7].isnan().any()
    assert gradients["A"][8].isfinite().all()


def test_slow_states_stay_accurate_over_a_long_sequence(isa: str) -> None:
    case = make_case((1, 16384, 2, 2), optional=False, complex_A=True)
    slow = torch.tensor([[-1e-3 + 0.1j, -1e-2 + 1e-4j], [-1e-4 + 1e-4j, -1.0 + 1j]])
    case = replace(case, A=slow, delta=case.delta.abs() * 0.1)
    mode = Mode(delta_softplus=False)
    assert error(native_scan(case, mode)[0], expected_scan(case, mode)[0]) <= 2e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("constant", ["", "B", "C", "BC"])
@pytest.mark.parametrize("real", ["B", "C", "BC"])
def test_real_B_and_C(real: str, constant: str, dtype: torch.dtype) -> None:
    case = make_case((2, 37, 6, 3), groups=2, dtype=dtype, constant=constant, complex_A=True)
    for name in real:
        values = getattr(case, name).real
        case = replace(case, **{name: values if name in constant else values.to(dtype)})
    names = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state")
    results = {}
    for backend in ("reference", "cpu"):
        leaves = {
            name: tensor.detach().clone().requires_grad_()
            for name, tensor in zip(names, case.tensors(), strict=True)
            if tensor is not None
        }
        y, state = selective_scan(
            **leaves, delta_softplus=True, return_final_state=True, backend=backend
        )
        total = y.double().sum() + (state * state.conj()).real.sum()
        gradients = torch.autograd.grad(total, list(leaves.values()))
        assert all(g.dtype == x.dtype for g, x in zip(gradients, leaves.values(), strict=True))
        results[backend] = [y, state, *gradients]
    for got, expected in zip(results["cpu"], results["reference"], strict=True):
        assert got.dtype == expected.dtype
        wide = torch.complex128 if got.is_complex() else torch.float64
        limit = {torch.float32: 3e-5, torch.bfloat16: 2e-2, torch.float64: 1e-12}
        assert error(got, expected.to(wide)) <= limit[got.dtype.to_real()]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/statm")
def test_memory_does_not_hold_every_state() -> None:
    # All states would be 4096 * 256 * 64 complex numbers, 512 MiB; 160 MiB are left.
    code = f"""
import resource, sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
import torch
from native_scan_cases import Mode, make_case, native_gradients, native_scan
torch.set_num_threads(1)
small = make_case((1, 40, 16, 4), complex_A=True)
native_gradients(small, Mode(), small.u, None)
case = make_case((1, 4096, 256, 64), complex_A=True)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 160 * 2**20, resource.RLIM_INFINITY))
print(native_gradients(case, Mode(), case.u, None)["A"].shape)
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout.strip() == "torch.Size([256, 64])", done.stderr
