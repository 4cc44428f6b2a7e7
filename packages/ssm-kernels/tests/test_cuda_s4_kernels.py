"""The CUDA kernels of log_vandermonde and cauchy, simulated, against the float64 reference."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from s4_kernel_cases import COMPLEX, Case, compare_fractions, compare_powers, poles, randn

from ssm_kernels import cauchy, cauchy_reference, log_vandermonde

pytestmark = pytest.mark.usefixtures("simulated")

# The fixture only chooses the module that runs; every example may share it.
few = settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
cases = st.builds(
    Case,
    leading=st.sampled_from([(), (1,), (2,), (5,), (0,)]),
    h=st.sampled_from([0, 1, 2]),
    n=st.sampled_from([0, 1, 2, 3, 5, 15, 17, 33]),
    long=st.sampled_from([0, 1, 2, 63, 64, 65, 127, 130, 300, 515]),
    z_per_row=st.booleans(),
    lazy=st.booleans(),
    seed=st.integers(0, 2**16),
)


@pytest.mark.parametrize("dtype", COMPLEX)
@few
@given(case=cases)
def test_powers(case: Case, dtype: torch.dtype) -> None:
    compare_powers(case, dtype, "auto")


@pytest.mark.parametrize("dtype", COMPLEX)
@few
@given(case=cases)
def test_fractions(case: Case, dtype: torch.dtype) -> None:
    compare_fractions(case, dtype, "auto")


# With 132 multiprocessors: tiles of one line per thread, of two, and of four, one only half used.
@pytest.mark.parametrize(
    ("h", "n", "long"), [(1, 3, 1025), (1, 18, 2500), (132, 1, 1100), (66, 2, 5000), (133, 1, 2050)]
)
def test_every_size_of_tile(h: int, n: int, long: int) -> None:
    compare_powers(Case((), h, n, long, False, False, 3), torch.complex64, "auto")


# One channel and several, 1, 2 and 4 nodes per thread; states that share the threads of a block.
@pytest.mark.parametrize(
    ("leading", "h", "n", "long"),
    [
        ((), 1, 1, 513),
        ((), 132, 1, 300),
        ((), 132, 1, 1300),
        ((6,), 132, 1, 200),
        ((3,), 1, 129, 30),
    ],
)
@pytest.mark.parametrize("z_per_row", [False, True])
def test_every_size_of_piece(
    leading: tuple[int, ...], h: int, n: int, long: int, z_per_row: bool
) -> None:
    compare_fractions(Case(leading, h, n, long, z_per_row, False, 3), torch.complex64, "auto")


@pytest.mark.parametrize("dtype", COMPLEX)
def test_angles_keep_their_digits(dtype: torch.dtype) -> None:
    """At t = 65535 a float32 angle of 2e5 would be off by 1e-2."""
    x = torch.complex(torch.full((1, 2), -1e-5), 3 * torch.rand(1, 2)).to(dtype)
    v = randn(1, 2, dtype=dtype)
    t = torch.arange(65536, dtype=torch.float64)
    wide_x, wide_v = x.to(torch.complex128), v.to(torch.complex128)
    expected = 2 * (wide_v.unsqueeze(-1) * torch.exp(wide_x.unsqueeze(-1) * t)).sum(1).real
    got = log_vandermonde(v, x, 65536, backend="auto")
    error = (got - expected).abs().max() / expected.abs().max()
    assert error < (1e-6 if dtype is torch.complex64 else 1e-10)


def test_rows_that_are_not_aligned() -> None:
    """The gradient of K begins in the middle of 16 bytes."""
    v, x = randn(2, 1, 3, dtype=torch.complex64).requires_grad_(), poles(1, 3).to(torch.complex64)
    storage = torch.randn(2 * 64 + 1)
    gradients = []
    for first in (0, 1):
        if first:
            storage[1:] = storage[:-1].clone()
        g = storage[first : first + 128].view(2, 1, 64)
        (gradient,) = torch.autograd.grad(log_vandermonde(v, x, 64, backend="auto"), v, g)
        gradients.append(gradient)
    assert torch.equal(*gradients)


def test_special_values_stay_in_their_row() -> None:
    v = randn(2, 3, 4, dtype=torch.complex64).requires_grad_()
    x = poles(3, 4).to(torch.complex64).requires_grad_()
    with torch.no_grad():
        x[1, 2] = complex("nan")
        v[1, 2, 0] = float("inf")
    K = log_vandermonde(v, x, 200, backend="auto")
    assert K[0, [0, 2]].isfinite().all()
    assert K[1, 0].isfinite().all()
    assert K[:, 1].isnan().all()
    assert not K[1, 2].isfinite().any()
    K[:, [0, 2]].sum().backward()
    assert v.grad is not None
    assert x.grad is not None
    assert v.grad[:, 0].isfinite().all()
    assert x.grad[0].isfinite().all()


def test_fast_decay_ends_in_zero() -> None:
    """Powers below the range, from the first step on, are 0; nothing turns into NaN."""
    x = torch.complex(torch.tensor([[-1e3, -30.0, -1e-3]]), torch.ones(1, 3)).requires_grad_()
    v = torch.ones(1, 3, dtype=torch.complex64, requires_grad=True)
    K = log_vandermonde(v, x, 3000, backend="auto")
    K.sum().backward()
    assert v.grad is not None
    assert x.grad is not None
    assert K.isfinite().all()
    assert v.grad.isfinite().all()
    assert x.grad.isfinite().all()


def test_nodes_close_to_a_pole_and_far_away() -> None:
    w = torch.tensor([[complex(-1e-4, 100.0)]], dtype=torch.complex64)
    z = torch.complex(torch.zeros(9), 100 + 1e-4 * torch.arange(-4.0, 5.0))
    z = torch.cat([z, 1j * torch.tensor([0.0, 1e5, 1e10, 1e17])])
    v = torch.ones(1, 1, dtype=torch.complex64)
    expected = cauchy_reference(*(x.to(torch.complex128) for x in (v, z, w)))
    got = cauchy(v, z, w, backend="auto")
    assert ((got - expected).abs() / expected.abs()).max() < 1e-6


def test_two_runs_are_the_same_bits() -> None:
    v, x = randn(3, 2, 5, dtype=torch.complex64), poles(2, 5).to(torch.complex64)
    z = 1j * torch.linspace(-3, 3, 600)
    runs = []
    for _ in range(2):
        leaves = [tensor.clone().requires_grad_() for tensor in (v, x, z)]
        K = log_vandermonde(leaves[0], leaves[1], 1500, backend="auto")
        R = cauchy(leaves[0], leaves[2], leaves[1], backend="auto")
        runs.append(torch.autograd.grad(K.square().sum() + R.abs().sum(), leaves))
    assert all(map(torch.equal, *runs))
