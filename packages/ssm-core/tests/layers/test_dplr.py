"""Diagonal plus low-rank models against dense matrices and a loop over the steps."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ssm_core.hippo import legs, legs_matrices
from ssm_core.layers import dplr
from ssm_core.layers.dplr_scan import chunk_length, chunk_tables, scan_chunks

H, N_HALF, CHANNELS = 3, 2, 2


def noise(*shape: int, complex_: bool = True) -> Tensor:
    return torch.randn(shape, dtype=torch.complex128 if complex_ else torch.float64)


def random_model(h: int = H, n: int = N_HALF) -> tuple[dplr.DPLR, Tensor]:
    """A model with step sizes absorbed, and the true C (c, h, n)."""
    dt = torch.rand(h, 1, dtype=torch.float64) + 0.01
    Lambda = torch.complex(-torch.rand(h, n, dtype=torch.float64) - 0.1, noise(h, n).real * 3)
    P = noise(h, n)
    return dplr.DPLR(dt * Lambda, dt * P, P.conj(), dt * noise(h, n)), noise(CHANNELS, h, n)


def dense(model: dplr.DPLR) -> tuple[Tensor, Tensor]:
    """Abar (h, N, N) and Bbar (h, N, 1) by the definition, on all states (x, conj x)."""
    lambda_, p, q, beta = (torch.cat([part, part.conj()], dim=-1) for part in model)
    A = torch.diag_embed(lambda_) - p.unsqueeze(-1) * q.unsqueeze(-2)
    eye = torch.eye(A.shape[-1])
    Abar = torch.linalg.solve(2 * eye - A, 2 * eye + A)
    return Abar, 2 * torch.linalg.solve(2 * eye - A, beta.unsqueeze(-1))


def loop(model: dplr.DPLR, C: Tensor, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """y (b, l, c, h) for u (b, l, h), and the states (b, l + 1, h, n) around the steps."""
    Abar, Bbar = dense(model)
    row = torch.cat([C, C.conj()], dim=-1)
    x = torch.cat([state, state.conj()], dim=-1).unsqueeze(-1)
    outputs, states = [], [state]
    for u_t in u.unbind(1):
        x = Abar @ x + Bbar * u_t[..., None, None]
        outputs.append((row * x.squeeze(-1).unsqueeze(1)).sum(-1).real)
        states.append(x[..., : state.shape[-1], 0])
    y = torch.stack(outputs, 1) if outputs else u.new_zeros(len(u), 0, *C.shape[:2])
    return y, torch.stack(states, 1)


def impulse_response(model: dplr.DPLR, C: Tensor, l: int) -> Tensor:
    """K (c, h, l)."""
    u = torch.zeros(1, l, C.shape[1], dtype=torch.float64)
    u[:, :1] = 1
    y, _ = loop(model, C, u, torch.zeros(1, *C.shape[1:], dtype=torch.complex128))
    return y[0].permute(1, 2, 0)


@pytest.mark.parametrize("l", [1, 2, 3, 4, 7, 32, 101, 128])
def test_convolution_kernel_is_the_impulse_response(l: int) -> None:
    model, C = random_model()
    A = dplr.as_matrix(dplr.discretise(model))
    absorbed = dplr.absorb(C, dplr.power(A, l))
    expected = impulse_response(model, C, l)
    K = dplr.convolution_kernel(model, absorbed, l, torch.complex128)
    torch.testing.assert_close(K, expected, rtol=1e-10, atol=1e-10)
    single = dplr.convolution_kernel(model, absorbed, l, torch.complex64)
    assert single.dtype is torch.float32
    assert (single - expected).abs().max() < 1e-5 * expected.abs().max()


def test_it_is_hippo_legs_in_its_true_basis() -> None:
    """The model of real dense matrices, without a low-rank decomposition."""
    N, dt, l = 8, 0.05, 50
    A, B = legs_matrices(N)
    row = noise(N, complex_=False)
    eye = torch.eye(N, dtype=torch.float64)
    Abar = torch.linalg.solve(2 / dt * eye - A, 2 / dt * eye + A)
    x, expected = 2 * torch.linalg.solve(2 / dt * eye - A, B), []
    for _ in range(l):
        expected.append(row @ x)
        x = Abar @ x

    start = legs(N)
    P, B = start.P.unsqueeze(0), start.B.unsqueeze(0)
    model = dplr.DPLR(dt * start.Lambda.unsqueeze(0), dt * P, P.conj(), dt * B)
    C = (row.to(start.V.dtype) @ start.V).view(1, 1, -1)
    A_power = dplr.power(dplr.as_matrix(dplr.discretise(model)), l)
    K = dplr.convolution_kernel(model, dplr.absorb(C, A_power), l, torch.complex128)
    torch.testing.assert_close(K[0, 0], torch.stack(expected), rtol=1e-10, atol=1e-10)


def test_real_matrices_are_the_complex_ones() -> None:
    model, C = random_model()
    discrete, x = dplr.discretise(model), noise(4, H, N_HALF)
    u = noise(4, H, complex_=False)
    _, states = loop(model, C, u.unsqueeze(1), x)
    torch.testing.assert_close(dplr.step(discrete, x, u), states[:, 1])
    column = (dplr.as_matrix(discrete) @ dplr.as_column(x).unsqueeze(-1)).squeeze(-1)
    column = column + dplr.as_column(discrete.Bbar) * u.unsqueeze(-1)
    torch.testing.assert_close(dplr.from_column(column), states[:, 1])
    outputs = (dplr.as_row(C) * dplr.as_column(x).unsqueeze(1)).sum(-1)
    torch.testing.assert_close(outputs, dplr.both(C * x.unsqueeze(1)))
    torch.testing.assert_close(dplr.from_row(dplr.as_row(C)), C)


@pytest.mark.parametrize("l", [1, 2, 3, 5, 6, 13, 64])
def test_powers(l: int) -> None:
    A = dplr.as_matrix(dplr.discretise(random_model()[0]))
    torch.testing.assert_close(dplr.power(A, l), torch.linalg.matrix_power(A, l))


def test_what_is_absorbed_is_recovered_and_doubled() -> None:
    model, C = random_model()
    A = dplr.as_matrix(dplr.discretise(model))
    A_power = dplr.power(A, 13)
    absorbed = dplr.absorb(C, A_power)
    # by the definition, in complex numbers
    Abar, _ = dense(model)
    row = torch.cat([C, C.conj()], dim=-1).unsqueeze(-2)
    expected = (row - row @ torch.linalg.matrix_power(Abar, 13)).squeeze(-2)[..., :N_HALF]
    torch.testing.assert_close(absorbed, expected)
    torch.testing.assert_close(dplr.absorb_steps(C, A, 13), expected)
    torch.testing.assert_close(dplr.recover(absorbed, A_power), C)
    torch.testing.assert_close(dplr.double(absorbed, A_power), dplr.absorb(C, A_power @ A_power))


@given(
    lengths=st.lists(st.integers(0, 40), min_size=0, max_size=4),
    log_q=st.integers(0, 5),
    spare=st.integers(0, 2),
)
@settings(max_examples=40, deadline=None)
def test_chunks_are_the_loop(lengths: list[int], log_q: int, spare: int) -> None:
    """Sequences of different lengths side by side, from states and to states."""
    model, C = random_model()
    b, l = len(lengths), max(lengths, default=0) + spare
    u, state = noise(b, l, H, complex_=False), noise(b, H, N_HALF)
    discrete = dplr.discretise(model)
    tables = chunk_tables(discrete, dplr.as_matrix(discrete), C, 2**log_q, torch.float64)

    y, final = scan_chunks(tables, u, state, torch.tensor(lengths, dtype=torch.int64))

    expected, states = loop(model, C, u, state)
    torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(final, states[range(b), lengths], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("chunks", [31, 32, 33, 513, 700])
def test_many_chunks_are_taken_in_groups(chunks: int) -> None:
    """One, two and three levels of groups."""
    model, C = random_model(h=2, n=1)
    l = 2 * chunks - 1
    u, state = noise(2, l, 2, complex_=False), noise(2, 2, 1)
    discrete = dplr.discretise(model)
    tables = chunk_tables(discrete, dplr.as_matrix(discrete), C, 2, torch.float64)
    y, final = scan_chunks(tables, u, state, torch.tensor([l, l - 5]))
    expected, states = loop(model, C, u, state)
    torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(final, states[range(2), [l, l - 5]], rtol=1e-10, atol=1e-10)


def test_chunks_are_no_longer_than_the_sequence_needs() -> None:
    assert [chunk_length(l) for l in (0, 1, 2, 3, 31, 32, 63, 64, 10_000)] == [
        *(1, 2, 4, 4, 32, 64, 64, 64, 64)
    ]


def test_slow_states_keep_their_digits_in_single_precision() -> None:
    """A state that decays by 1e-4 per step, rounded to float32: the step must not forget it."""
    lambda_ = torch.tensor([[-1e-4 + 1e-3j]], dtype=torch.complex128)
    zero, one = torch.zeros_like(lambda_), torch.ones_like(lambda_)
    model = dplr.discretise(dplr.DPLR(lambda_, zero, zero, zero))
    rounded = dplr.Discrete(*(part.to(torch.complex64) for part in model))
    x, u = one.to(torch.complex64), torch.zeros(1, 1)
    for _ in range(5000):
        x = dplr.step(rounded, x.view(1, 1, 1), u)
    expected = (1 + model.delta) ** 5000
    assert (x - expected).abs().max() < 3e-6
