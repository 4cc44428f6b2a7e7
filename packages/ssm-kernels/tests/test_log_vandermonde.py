"""The sum of powers: the reference against the equation, every backend against the reference."""

from __future__ import annotations

import cmath
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kernel_cases import BACKENDS, examples
from s4_kernel_cases import COMPLEX, ORDINARY, Case, cases, compare_powers, poles, randn
from torch import Tensor

from ssm_kernels import log_vandermonde, log_vandermonde_reference, native


def test_the_reference_is_the_equation() -> None:
    v, x = randn(2, 3, 5, dtype=torch.complex128), poles(3, 5)
    K = log_vandermonde_reference(v, x, 7)
    for c in range(2):
        for h in range(3):
            for t in range(7):
                terms = [v[c, h, n].item() * cmath.exp(t * x[h, n].item()) for n in range(5)]
                assert abs(K[c, h, t].item() - 2 * sum(terms).real) < 1e-13


def test_it_is_the_response_of_the_discretised_model() -> None:
    """C A_bar^t B_bar of S4D, stepped with both states of each pair."""
    A, C = torch.exp(poles(2, 3)), randn(2, 3, dtype=torch.complex128)
    A_pairs, C_pairs = torch.cat([A, A.conj()], -1), torch.cat([C, C.conj()], -1)
    state, outputs = torch.ones(2, 6, dtype=torch.complex128), []
    for _ in range(20):
        outputs.append((C_pairs * state).sum(-1).real)
        state = A_pairs * state
    K = log_vandermonde(C, torch.log(A), 20, backend="cpu")
    assert torch.allclose(K, torch.stack(outputs, -1), rtol=0, atol=1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_are_those_of_finite_differences(backend: str) -> None:
    v = randn(2, 2, 3, dtype=torch.complex128).requires_grad_()
    x = poles(2, 3).requires_grad_()

    def f(v: Tensor, x: Tensor) -> Tensor:
        return log_vandermonde(v, x, 11, backend=backend)

    assert torch.autograd.gradcheck(f, (v, x))


def test_the_reference_has_second_derivatives() -> None:
    v, x = randn(1, 2, dtype=torch.complex128).requires_grad_(), poles(1, 2).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda v, x: log_vandermonde_reference(v, x, 4), (v, x))


@pytest.mark.parametrize("dtype", COMPLEX)
@pytest.mark.parametrize("backend", BACKENDS)
@examples
@given(case=cases)
def test_values_and_gradients(case: Case, backend: str, dtype: torch.dtype) -> None:
    compare_powers(case, dtype, backend)


@pytest.mark.parametrize("dtype", COMPLEX)
@pytest.mark.parametrize("long", [64, 8191, 8192, 8300, 17000])
def test_long_kernels(isa: str, long: int, dtype: torch.dtype) -> None:
    """Several pieces of a row, and rows of all lengths in the last one."""
    compare_powers(replace(ORDINARY, long=long, n=66, h=2), dtype, "cpu")


@examples
@given(case=cases, dtype=st.sampled_from(COMPLEX))
def test_every_instruction_set(case: Case, dtype: torch.dtype) -> None:
    before = native.isa()
    try:
        for name in native.available_isas():
            native.set_isa(name)
            compare_powers(case, dtype, "cpu")
    finally:
        native.set_isa(before)


@pytest.mark.parametrize("dtype", COMPLEX)
def test_angles_keep_their_digits(isa: str, dtype: torch.dtype) -> None:
    """At t = 65535 a float32 angle of 2e5 would be off by 1e-2."""
    x = torch.complex(torch.full((1, 8), -1e-5), 3 * torch.rand(1, 8)).to(dtype)
    v = randn(1, 8, dtype=dtype)
    t = torch.arange(65536, dtype=torch.float64)
    wide_x, wide_v = x.to(torch.complex128), v.to(torch.complex128)
    expected = 2 * (wide_v.unsqueeze(-1) * torch.exp(wide_x.unsqueeze(-1) * t)).sum(1).real
    got = log_vandermonde(v, x, 65536, backend="cpu")
    error = (got - expected).abs().max() / expected.abs().max()
    assert error < (1e-6 if dtype is torch.complex64 else 1e-11)


@pytest.mark.parametrize("size", [1e3, 1e7, 1e12])
def test_angles_of_any_size(isa: str, size: float) -> None:
    """Those that the vectors cannot reduce go through the C library."""
    x = torch.complex(torch.full((1, 3), -0.1), size * torch.rand(1, 3)).to(torch.complex64)
    v = randn(1, 3, dtype=torch.complex64)
    expected = log_vandermonde_reference(v.to(torch.complex128), x.to(torch.complex128), 2)
    got = log_vandermonde(v, x, 2, backend="cpu")
    assert (got - expected).abs().max() < 1e-5


def test_a_sum_of_nothing() -> None:
    for backend in BACKENDS:
        empty = torch.zeros(3, 0, dtype=torch.complex64)
        assert torch.equal(log_vandermonde(empty, empty, 4, backend=backend), torch.zeros(3, 4))


@pytest.mark.parametrize("special", [float("nan"), float("inf"), complex(0, float("nan"))])
def test_special_values_stay_in_their_row(isa: str, special: complex) -> None:
    v = randn(2, 3, 4, dtype=torch.complex64).requires_grad_()
    x = poles(3, 4).to(torch.complex64).requires_grad_()
    with torch.no_grad():
        x[1, 2] = special
        v[1, 2, 0] = special
    K = log_vandermonde(v, x, 200, backend="cpu")
    assert K[0, [0, 2]].isfinite().all()
    assert K[1, 0].isfinite().all()
    assert not K[:, 1, 1:].isfinite().any()
    assert not K[1, 2].isfinite().any()
    K[:, [0, 2]].sum().backward()
    assert v.grad is not None
    assert x.grad is not None
    assert v.grad[:, 0].isfinite().all()
    assert x.grad[0].isfinite().all()


def test_fast_decay_ends_in_zero(isa: str) -> None:
    """Powers below the range, from the first step on, are 0; nothing turns into NaN."""
    x = torch.complex(torch.tensor([[-1e3, -30.0, -1e-3]]), torch.ones(1, 3)).requires_grad_()
    v = torch.ones(1, 3, dtype=torch.complex64, requires_grad=True)
    K = log_vandermonde(v, x, 20000, backend="cpu")
    assert K.isfinite().all()
    assert K[0, -1].abs() < 1e-7
    K.sum().backward()
    assert v.grad is not None
    assert x.grad is not None
    assert v.grad.isfinite().all()
    assert x.grad.isfinite().all()


def test_the_number_of_threads_changes_nothing() -> None:
    v, x = randn(2, 5, 70, dtype=torch.complex64), poles(5, 70).to(torch.complex64)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            leaves = v.clone().requires_grad_(), x.clone().requires_grad_()
            K = log_vandermonde(*leaves, 9000, backend="cpu")
            gradients = torch.autograd.grad(K.square().sum(), leaves)
            results.append((K.detach(), *gradients))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(map(torch.equal, other, results[0]))
