"""One decode step: every backend against the float64 reference and one step of the scan."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kernel_cases import BACKENDS, DTYPES, TOLERANCE, assert_close, examples
from torch import Tensor
from update_cases import copied, input_layouts, random, seeds, state_layouts

from ssm_kernels import (
    native,
    selective_scan,
    selective_state_update,
    selective_state_update_reference,
)


@dataclass(frozen=True)
class Case:
    """Everything that decides the arguments of one call."""

    b: int
    heads: int
    p: int | None  # None: no axis of heads, and `heads` is d
    n: int
    groups: tuple[int, int]  # of B and C; 0: (b, n)
    is_complex: bool
    options: tuple[bool, bool, bool, bool]  # D, z, dt_bias, softplus
    layouts: tuple[str, ...]
    seed: int

    def arguments(self, dtype: torch.dtype, state_dtype: torch.dtype) -> dict[str, Tensor]:
        torch.manual_seed(self.seed)
        channels = (self.heads,) if self.p is None else (self.heads, self.p)
        real = torch.float64 if dtype is torch.float64 else torch.float32
        number = real.to_complex() if self.is_complex else real
        state_dtype = state_dtype.to_complex() if self.is_complex else state_dtype
        projected = number if self.is_complex else dtype
        state, *others = self.layouts
        layout = iter(others)
        D, z, dt_bias, softplus = self.options
        made = {
            "state": random((self.b, *channels, self.n), state_dtype, state),
            "x": random((self.b, *channels), dtype, next(layout)),
            "dt": random((self.b, *channels), dtype, next(layout)),
            "A": random((*channels, self.n), number, next(layout)),
            "B": self._projection(self.groups[0], projected, next(layout)),
            "C": self._projection(self.groups[1], projected, next(layout)),
        }
        made["A"] = made["A"].neg() if made["A"].is_complex() else -made["A"].abs()
        if self.is_complex:
            made["A"] = torch.complex(-made["A"].real.abs(), 3 * made["A"].imag)
        if not softplus:
            made["dt"] = made["dt"].abs() * 0.3
        if D:
            made["D"] = random(channels, real, next(layout))
        if z:
            made["z"] = random((self.b, *channels), dtype, next(layout))
        if dt_bias:
            made["dt_bias"] = random(channels, real, next(layout)).abs() * 0.5
        return made

    def _projection(self, groups: int, dtype: torch.dtype, layout: str) -> Tensor:
        shape = (self.b, self.n) if groups == 0 else (self.b, groups, self.n)
        return random(shape, dtype, layout)

    @property
    def softplus(self) -> bool:
        return self.options[3]


@st.composite
def cases(draw: st.DrawFn, is_complex: bool | None = None) -> Case:
    p = draw(st.sampled_from([None, None, 0, 1, 3, 17, 64]))
    sizes = [0, 1, 2, 3, 6, 16, 17, 24, 130] if p is None else [0, 1, 2, 4, 6]
    heads = draw(st.sampled_from(sizes))
    groups = st.sampled_from([0, 1] + [g for g in (2, 3, 4, 6) if heads % g == 0])
    return Case(
        draw(st.integers(0, 3)),
        heads,
        p,
        draw(st.sampled_from([0, 1, 2, 3, 4, 5, 8, 16, 17, 31, 64, 130])),
        (draw(groups), draw(groups)),
        draw(st.booleans()) if is_complex is None else is_complex,
        tuple(draw(st.booleans()) for _ in range(4)),
        (draw(state_layouts), *(draw(input_layouts) for _ in range(8))),
        draw(seeds),
    )


def widened(arguments: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        k: v.to(torch.complex128 if v.is_complex() else torch.float64, copy=True)
        for k, v in arguments.items()
    }


def check(case: Case, dtype: torch.dtype, state_dtype: torch.dtype, backend: str) -> None:
    arguments = case.arguments(dtype, state_dtype)
    wide = widened(arguments)
    expected = selective_state_update_reference(**wide, dt_softplus=case.softplus)
    before = {k: v.clone() for k, v in arguments.items()}
    state = arguments["state"]
    strides, address = state.stride(), state.data_ptr()

    y = selective_state_update(**arguments, dt_softplus=case.softplus, backend=backend)

    assert y.dtype is dtype
    assert (state.stride(), state.data_ptr()) == (strides, address)
    assert_close(y, expected, TOLERANCE[dtype], "y")
    stored = torch.float32 if state_dtype.itemsize == 4 or case.is_complex else state_dtype
    tolerance = max(TOLERANCE[stored], TOLERANCE[dtype] if dtype is not torch.float64 else 0)
    assert_close(state, wide["state"], max(tolerance, 1e-5), "state")
    for name in arguments.keys() - {"state"}:
        assert torch.equal(arguments[name], before[name]), f"{name} was changed"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", BACKENDS)
@examples
@given(case=cases(), state_dtype=st.sampled_from([torch.float32, torch.float64]))
def test_values(case: Case, backend: str, dtype: torch.dtype, state_dtype: torch.dtype) -> None:
    check(case, dtype, state_dtype, backend)


@pytest.mark.parametrize("state_dtype", DTYPES)
@pytest.mark.parametrize("backend", BACKENDS)
@examples
@given(case=cases(is_complex=False))
def test_state_types(case: Case, backend: str, state_dtype: torch.dtype) -> None:
    check(case, torch.float32, state_dtype, backend)


@pytest.mark.parametrize("isa", native.available_isas())
@examples
@given(case=cases(), dtype=st.sampled_from(DTYPES))
def test_every_instruction_set(case: Case, isa: str, dtype: torch.dtype) -> None:
    before = native.isa()
    native.set_isa(isa)
    try:
        check(case, dtype, torch.float64 if dtype is torch.float64 else torch.float32, "cpu")
    finally:
        native.set_isa(before)


@pytest.mark.parametrize("backend", BACKENDS)
@examples
@given(case=cases())
def test_float64_is_exact_to_rounding(case: Case, backend: str) -> None:
    arguments = case.arguments(torch.float64, torch.float64)
    wide = widened(arguments)
    expected = selective_state_update_reference(**wide, dt_softplus=case.softplus)
    y = selective_state_update(**arguments, dt_softplus=case.softplus, backend=backend)
    assert_close(y, expected, 1e-12, "y")
    assert_close(arguments["state"], wide["state"], 1e-12, "state")


@pytest.mark.parametrize("backend", BACKENDS)
@examples
@given(case=cases(), steps=st.integers(1, 4))
def test_steps_are_the_scan(case: Case, backend: str, steps: int) -> None:
    """Heads are channels to the scan; with one head per group its channels share B and C."""
    torch.manual_seed(case.seed)
    b, n = case.b, case.n
    channels = (case.heads,) if case.p is None else (case.heads, case.p)
    d = case.heads * (1 if case.p is None else case.p)
    number = torch.complex128 if case.is_complex else torch.float64
    A = -torch.rand(*channels, n, dtype=torch.float64).to(number)
    D, bias = torch.randn(*channels).double(), torch.rand(*channels).double()
    state = torch.randn(b, *channels, n, dtype=number)
    u, delta, z = (torch.randn(b, steps, *channels).double() for _ in range(3))
    g_B, g_C = (g or 1 for g in case.groups)
    B, C = (torch.randn(b, steps, g, n, dtype=number) for g in (g_B, g_C))
    expected, final = selective_scan(
        u.reshape(b, steps, d),
        delta.reshape(b, steps, d),
        A.reshape(d, n),
        B,
        C,
        D.reshape(d),
        z.reshape(b, steps, d),
        bias.reshape(d),
        True,
        initial_state=state.reshape(b, d, n),
        return_final_state=True,
        backend="reference",
    )
    for t in range(steps):
        B_t = B[:, t, 0] if case.groups[0] == 0 else B[:, t]
        C_t = C[:, t, 0] if case.groups[1] == 0 else C[:, t]
        y = selective_state_update(
            state, u[:, t], delta[:, t], A, B_t, C_t, D, z[:, t], bias, True, backend=backend
        )
        assert_close(y.reshape(b, d), expected[:, t], 1e-12, f"y[{t}]")
    assert_close(state.reshape(b, d, n), final, 1e-12, "state")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_number_per_head_may_be_expanded(backend: str, dtype: torch.dtype) -> None:
    """A, dt, D and dt_bias of Mamba-2, without a copy of them in memory."""
    b, h, p, n, g = 2, 6, 40, 64, 2
    x, z = torch.randn(b, h, p, dtype=dtype), torch.randn(b, h, p, dtype=dtype)
    dt = torch.randn(b, h, 1, dtype=dtype).expand(b, h, p)
    A = (-torch.rand(h, 1, 1)).expand(h, p, n)
    D, bias = torch.randn(h, 1).expand(h, p), torch.rand(h, 1).expand(h, p)
    B, C = torch.randn(b, g, n, dtype=dtype), torch.randn(b, g, n, dtype=dtype)
    state = torch.randn(b, h, p, n)
    wide = state.double()
    expected = selective_state_update_reference(
        wide, *(t.double() for t in (x, dt, A, B, C, D, z, bias)), True
    )
    y = selective_state_update(state, x, dt, A, B, C, D, z, bias, True, backend=backend)
    assert_close(y, expected, TOLERANCE[dtype])
    assert_close(state, wide, 1e-5)


def test_copied_keeps_strides() -> None:
    tensor = torch.randn(3, 4, 5).transpose(0, 2)
    assert copied(tensor).stride() == tensor.stride()
    assert torch.equal(copied(tensor), tensor)
