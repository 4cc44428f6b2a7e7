"""HiPPO-LegS and the diagonal spectra against their definitions and the official values."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ssm_core.errors import ConfigError
from ssm_core.hippo import confined_B, diagonal_spectrum, legs, legs_matrices

EXACT = {"rtol": 1e-12, "atol": 1e-12}

#: of the official implementation (transition("legs", 8) and nplr("legs", 8))
OFFICIAL_FREQUENCIES = [-19.8574, -5.3542, -1.9578, -0.4275]


def with_conjugates(half: Tensor) -> Tensor:
    return torch.cat([half, half.conj()], dim=-1)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_legs_is_its_definition(n: int) -> None:
    A, B = legs_matrices(n)
    for i in range(n):
        assert B[i] == pytest.approx(math.sqrt(2 * i + 1))
        for j in range(n):
            below = -math.sqrt(2 * i + 1) * math.sqrt(2 * j + 1)
            assert A[i, j] == pytest.approx(below if i > j else -(i + 1) if i == j else 0.0)


@pytest.mark.parametrize("n", [2, 8, 16, 64])
def test_the_diagonal_and_the_low_rank_part_make_up_legs(n: int) -> None:
    A, B = legs_matrices(n)
    model = legs(n)
    V = with_conjugates(model.V)
    identity = torch.eye(n, dtype=torch.complex128)
    torch.testing.assert_close(V.conj().T @ V, identity, rtol=1e-9, atol=1e-9)
    P = with_conjugates(model.P)
    dplr = torch.diag(with_conjugates(model.Lambda)) - torch.outer(P, P.conj())
    rebuilt = V @ dplr @ V.conj().T
    torch.testing.assert_close(rebuilt, A + 0j, rtol=1e-9, atol=1e-9 * n)
    torch.testing.assert_close(V @ with_conjugates(model.B), B + 0j, rtol=1e-9, atol=1e-9)


def test_legs_has_the_official_spectrum_and_convention() -> None:
    model = legs(8)
    torch.testing.assert_close(model.Lambda.real, torch.full((4,), -0.5).double(), **EXACT)
    expected = torch.tensor(OFFICIAL_FREQUENCIES).double()
    torch.testing.assert_close(model.Lambda.imag, expected, rtol=1e-4, atol=0)
    assert model.V[0].imag.abs().max() < 1e-12
    assert confined_B(model.B).imag.abs().max() <= 2
    torch.testing.assert_close(confined_B(model.B).real, model.B.real)


def test_diagonal_spectra() -> None:
    n, k = 16, torch.arange(8).double()
    frequencies = {
        "lin": math.pi * k,
        "inv": n / math.pi * (n / (2 * k + 1) - 1),
        "real": torch.zeros(8).double(),
    }
    for init, expected in frequencies.items():
        Lambda, B = diagonal_spectrum(init, n)
        torch.testing.assert_close(Lambda.imag, -expected, **EXACT)
        torch.testing.assert_close(B, torch.ones(8) + torch.zeros(8).to(torch.complex128))
        decay = 1 + k if init == "real" else torch.full((8,), 0.5).double()
        torch.testing.assert_close(Lambda.real, -decay, **EXACT)
    Lambda, B = diagonal_spectrum("legs", n)
    torch.testing.assert_close(Lambda, legs(n).Lambda)
    torch.testing.assert_close(B, confined_B(legs(n).B))


def test_inv_approximates_the_frequencies_of_legs() -> None:
    """The reason for its formula: they agree within a quarter."""
    exact = legs(64).Lambda.imag
    near = diagonal_spectrum("inv", 64)[0].imag
    torch.testing.assert_close(near[:12], exact[:12], rtol=0.25, atol=0)


def test_unknown_spectrum() -> None:
    with pytest.raises(ConfigError, match="init is 'leg', expected 'legs' or 'lin' or"):
        diagonal_spectrum("leg", 4)  # type: ignore[arg-type]
