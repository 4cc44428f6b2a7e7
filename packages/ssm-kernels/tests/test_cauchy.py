"""The Cauchy sum: the reference against the equation, every backend against the reference."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kernel_cases import BACKENDS, examples
from s4_kernel_cases import COMPLEX, ORDINARY, Case, cases, compare_fractions, poles, randn

from ssm_kernels import cauchy, cauchy_reference, native


@pytest.mark.parametrize("per_row", [False, True])
def test_the_reference_is_the_equation(per_row: bool) -> None:
    v, w = randn(2, 3, 5, dtype=torch.complex128), poles(3, 5)
    z = randn(*((3, 7) if per_row else (7,)), dtype=torch.complex128)
    R = cauchy_reference(v, z, w)
    for c in range(2):
        for h in range(3):
            for k in range(7):
                node = (z[h, k] if per_row else z[k]).item()
                expected = 0j
                for n in range(5):
                    top, pole = v[c, h, n].item(), w[h, n].item()
                    expected += top / (node - pole)
                    expected += top.conjugate() / (node - pole.conjugate())
                assert abs(R[c, h, k].item() - expected) < 1e-12 * max(1, abs(expected))


@pytest.mark.parametrize("per_row", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_are_those_of_finite_differences(backend: str, per_row: bool) -> None:
    v = randn(2, 2, 3, dtype=torch.complex128).requires_grad_()
    z = (randn(*((2, 4) if per_row else (4,)), dtype=torch.complex128) + 3).requires_grad_()
    w = poles(2, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda v, z, w: cauchy(v, z, w, backend=backend), (v, z, w))


def test_the_reference_has_second_derivatives() -> None:
    v, w = randn(1, 2, dtype=torch.complex128).requires_grad_(), poles(1, 2).requires_grad_()
    z = (randn(3, dtype=torch.complex128) + 3).requires_grad_()
    assert torch.autograd.gradgradcheck(cauchy_reference, (v, z, w))


@pytest.mark.parametrize("dtype", COMPLEX)
@pytest.mark.parametrize("backend", BACKENDS)
@examples
@given(case=cases)
def test_values_and_gradients(case: Case, backend: str, dtype: torch.dtype) -> None:
    compare_fractions(case, dtype, backend)


@pytest.mark.parametrize("dtype", COMPLEX)
@pytest.mark.parametrize("z_per_row", [False, True])
def test_many_nodes_and_channels(isa: str, z_per_row: bool, dtype: torch.dtype) -> None:
    case = replace(ORDINARY, leading=(7,), long=1500, n=9, z_per_row=z_per_row)
    compare_fractions(case, dtype, "cpu")


@examples
@given(case=cases, dtype=st.sampled_from(COMPLEX))
def test_every_instruction_set(case: Case, dtype: torch.dtype) -> None:
    before = native.isa()
    try:
        for name in native.available_isas():
            native.set_isa(name)
            compare_fractions(case, dtype, "cpu")
    finally:
        native.set_isa(before)


def test_nodes_close_to_a_pole(isa: str) -> None:
    """z^2 - 2 Re(w) z + |w|^2 would lose all digits here."""
    w = torch.tensor([[complex(-1e-4, 100.0)]], dtype=torch.complex64)
    z = torch.complex(torch.zeros(9), 100 + 1e-4 * torch.arange(-4.0, 5.0))
    v = torch.ones(1, 1, dtype=torch.complex64)
    expected = cauchy_reference(*(x.to(torch.complex128) for x in (v, z, w)))
    got = cauchy(v, z, w, backend="cpu")
    assert ((got - expected).abs() / expected.abs()).max() < 1e-6


def test_nodes_far_away(isa: str) -> None:
    """The nodes beside w = -1: R z tends to 2 Re sum_n v."""
    v, w = randn(1, 4, dtype=torch.complex64), poles(1, 4).to(torch.complex64)
    z = 1j * torch.tensor([1e4, 1e8, 1e12, 1e17])
    R = cauchy(v, z, w, backend="cpu")
    limit = 2 * v.real.sum()
    assert ((R * z).real - limit).abs().max() < 1e-3 * limit.abs()


def test_a_sum_of_nothing() -> None:
    for backend in BACKENDS:
        empty = torch.zeros(3, 0, dtype=torch.complex64)
        z = torch.ones(4, dtype=torch.complex64)
        assert torch.equal(cauchy(empty, z, empty, backend=backend), torch.zeros(3, 4) + 0j)


def test_special_values_stay_where_they_are(isa: str) -> None:
    v = randn(2, 3, 4, dtype=torch.complex64).requires_grad_()
    w = poles(3, 4).to(torch.complex64)
    z = randn(20, dtype=torch.complex64)
    with torch.no_grad():
        z[5] = complex("nan")
        z[6] = complex(0, float("inf"))
        w[1, 2] = complex("nan")
        v[1, 2, 0] = complex("inf")
    w.requires_grad_()
    z.requires_grad_()
    R = cauchy(v, z, w, backend="cpu")
    good = [k for k in range(20) if k not in (5, 6)]
    assert R[0, 0, good].isfinite().all()
    assert R[1, 0, good].isfinite().all()
    assert R[0, 2, good].isfinite().all()
    assert not R[..., 5].isfinite().any()
    assert not R[:, 1].isfinite().any()
    assert not R[1, 2].isfinite().any()
    R[:, :, good][:, [0]].abs().sum().backward()
    assert v.grad is not None
    assert z.grad is not None
    assert not v.grad[:, 0].isfinite().any()  # sums over all nodes
    assert z.grad.shape == z.shape


def test_the_number_of_threads_changes_nothing() -> None:
    v, w = randn(2, 5, 7, dtype=torch.complex64), poles(5, 7).to(torch.complex64)
    z = 1j * torch.linspace(-3, 3, 1500)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            leaves = [x.clone().requires_grad_() for x in (v, z, w)]
            R = cauchy(*leaves, backend="cpu")
            gradients = torch.autograd.grad(R.abs().sum(), leaves)
            results.append((R.detach(), *gradients))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(map(torch.equal, other, results[0]))
