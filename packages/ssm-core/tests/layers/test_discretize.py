"""Discretisation rules: their formulas, digits near 0, finite values and gradients at the ends."""

from __future__ import annotations

import cmath

import pytest
import torch
from torch import Tensor

from ssm_core.layers.discretize import DISCRETIZATIONS, discretize, expm1


def formulas(rule: str, Lambda: complex, dt: float) -> tuple[complex, complex]:
    """Abar and Bbar / B."""
    z = dt * Lambda
    if rule == "zoh":
        return cmath.exp(z), (cmath.exp(z) - 1) / Lambda
    return (1 + z / 2) / (1 - z / 2), dt / (1 - z / 2)


@pytest.mark.parametrize("rule", DISCRETIZATIONS)
def test_equals_the_formulas(rule: str) -> None:
    torch.manual_seed(0)
    Lambda = torch.complex(-torch.rand(4, 5).double() * 3, torch.randn(4, 5).double() * 8)
    dt = torch.rand(4, 1).double() * 2
    log_A, gain = discretize(rule, Lambda, dt)  # type: ignore[arg-type]
    for i in range(4):
        for j in range(5):
            A, expected = formulas(rule, complex(Lambda[i, j]), float(dt[i]))
            assert cmath.isclose(complex(log_A[i, j].exp()), A, rel_tol=1e-12, abs_tol=1e-14)
            assert cmath.isclose(complex(gain[i, j]), expected, rel_tol=1e-12)


@pytest.mark.parametrize("rule", DISCRETIZATIONS)
@pytest.mark.parametrize("dt", [1e-7, 1e-5, 1e-3, 1e-1, 1.0])
def test_single_precision_keeps_its_digits(rule: str, dt: float) -> None:
    """In each part by itself: the real part of log Abar decides how long the memory is."""
    Lambda = torch.complex(-torch.logspace(-2, 1, 31), -torch.logspace(1, -2, 31)).unsqueeze(0)
    step = torch.tensor([[dt]])
    exact = discretize(rule, Lambda.to(torch.complex128), step.double())  # type: ignore[arg-type]
    single = discretize(rule, Lambda, step)  # type: ignore[arg-type]
    assert single.log_A.dtype == torch.complex64
    torch.testing.assert_close(
        torch.view_as_real(single.log_A).double(),
        torch.view_as_real(exact.log_A),
        rtol=2e-6,
        atol=1e-30,
    )
    assert ((single.gain - exact.gain).abs() <= 1e-6 * exact.gain.abs()).all()


def test_expm1_keeps_its_digits_near_0() -> None:
    z = torch.complex(-torch.logspace(-9, 0, 50), torch.logspace(-9, 0, 50).flip(0))
    expected = torch.zeros(50, dtype=torch.complex128)
    term = torch.ones(50, dtype=torch.complex128)
    for k in range(1, 30):
        term = term * z.to(torch.complex128) / k
        expected += term
    assert ((expm1(z) - expected).abs() <= 3e-7 * expected.abs()).all()
    wide = z.to(torch.complex128)
    assert ((expm1(wide) - expected).abs() <= 1e-14 * expected.abs()).all()


@pytest.mark.parametrize("rule", DISCRETIZATIONS)
def test_gradients(rule: str) -> None:
    real = torch.tensor([[-0.5, -0.5, -1e-3, -3.0, -6.0]], dtype=torch.float64)
    imag = torch.tensor([[0.0, -20.0, -1e-4, 0.5, 0.0]], dtype=torch.float64)
    dt = torch.tensor([[0.7]], dtype=torch.float64)

    def run(*inputs: Tensor) -> tuple[Tensor, Tensor]:
        real, imag, dt = inputs
        log_A, gain = discretize(rule, torch.complex(real, imag), dt)  # type: ignore[arg-type]
        return log_A.exp(), gain  # the logarithm of a negative number may turn once

    inputs = [x.requires_grad_() for x in (real, imag, dt)]
    assert torch.autograd.gradcheck(run, inputs, eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("rule", DISCRETIZATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients_are_finite_at_the_ends(rule: str, dtype: torch.dtype) -> None:
    """Steps and rates of 1e17 and 1e-17; z = -2, where Abar of the bilinear rule is 0."""
    ends = [1e-17, 1e-6, 0.5, 2.0, 1e17]
    grid = torch.cartesian_prod(
        torch.tensor(ends), torch.tensor([0.0, 1e-4, 1e3]), torch.tensor(ends)
    )
    decay, frequency, step = (x.to(dtype).requires_grad_() for x in grid.unbind(1))
    Lambda = torch.complex(-decay, -frequency)
    log_A, gain = discretize(rule, Lambda, step)  # type: ignore[arg-type]
    assert log_A.isfinite().all()
    assert gain.isfinite().all()
    assert (log_A.real <= 0).all()
    (log_A.exp().abs().sum() + gain.abs().clamp(max=1e3).sum()).backward()
    for leaf in (decay, frequency, step):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()


def test_bilinear_rule_of_huge_steps_is_its_limit() -> None:
    log_A, gain = discretize("bilinear", torch.tensor([[-0.5 - 3j]]), torch.tensor([[1e13]]))
    torch.testing.assert_close(log_A.exp(), torch.tensor([[-1.0 + 0j]]))
    torch.testing.assert_close(gain, -2 / torch.tensor([[-0.5 - 3j]]))
