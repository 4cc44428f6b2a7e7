"""HiPPO-LegS and the diagonal spectra derived from it: where S4, S4D and S5 start.

A state space model x' = A x + B u with A, B of HiPPO-LegS keeps the coefficients of its input's
history in Legendre polynomials. A itself is not normal and cannot be diagonalised in any finite
precision, but A + P P^T is, so

    A = V (diag(Lambda) - P~ P~^*) V^*        P~ = V^* P,  B~ = V^* B

S4 keeps both parts (DPLR), S4D-LegS and S5 the diagonal one. All matrices are real, so eigenvalues
come in conjugate pairs; of each the one with Im Lambda < 0 is kept, n/2 of n states.

Sources: Gu et al. 2020, arXiv:2008.07669 (HiPPO); Gu, Goel & Re 2021, arXiv:2111.00396, Appendix C
(normal plus low rank); Gu, Gupta, Goel & Re 2022, arXiv:2206.11893, section 4 (diagonal spectra).
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from ssm_core.layers.checks import one_of

DiagonalInit = Literal["legs", "lin", "inv", "real"]
DIAGONAL_INITS: tuple[str, ...] = get_args(DiagonalInit)

#: B~ of LegS grows with the frequency; its imaginary part is confined to this, as in the official
#: implementation.
_MOST_IMAGINARY_B = 2.0


class Legs(NamedTuple):
    """HiPPO-LegS in the basis that makes its normal part diagonal; complex128, n/2 of n states."""

    Lambda: Tensor
    """(n/2,) eigenvalues of A + P P^T, real part -1/2, by ascending imaginary part (all < 0)."""
    P: Tensor
    """(n/2,) the low-rank part V^* P."""
    B: Tensor
    """(n/2,) V^* B, not confined."""
    V: Tensor
    """(n, n/2) orthonormal eigenvectors, the first component of each real."""


def legs_matrices(n: int) -> tuple[Tensor, Tensor]:
    """Return A (n, n) and B (n,) of HiPPO-LegS in float64."""
    root = torch.sqrt(2 * torch.arange(n, dtype=torch.float64) + 1)
    A = -torch.outer(root, root).tril(-1) - torch.diag(torch.arange(1, n + 1, dtype=torch.float64))
    return A, root


def legs(n: int) -> Legs:
    """Diagonalise the normal part of HiPPO-LegS of size n (even).

    The phase of an eigenvector is a convention: here its first component is real. Its sign stays
    free; P and B change theirs with it, so that B conj(P) does not depend on it.

    Cost: O(n^3), once.
    """
    A, B = legs_matrices(n)
    P = torch.sqrt(torch.arange(n, dtype=torch.float64) + 0.5)
    S = A + torch.outer(P, P)  # -1/2 on the diagonal, skew beside it
    # Hermitian, so the eigenvalues are real, and exact to the last digits
    frequencies, V = torch.linalg.eigh(S * -1j)
    frequencies, V = frequencies[: n // 2], V[:, : n // 2]
    V = V * (V[0].abs() / V[0])
    Lambda = torch.complex(S.diagonal().mean().expand(n // 2), frequencies)
    V_inverse = V.conj().T
    return Legs(Lambda, V_inverse @ P.to(V.dtype), V_inverse @ B.to(V.dtype), V)


def confined_B(B: Tensor) -> Tensor:
    """Return B with its imaginary part confined to [-2, 2], as layers start with."""
    return torch.complex(B.real, B.imag.clamp(-_MOST_IMAGINARY_B, _MOST_IMAGINARY_B))


def diagonal_spectrum(init: DiagonalInit, n: int) -> tuple[Tensor, Tensor]:
    """Return Lambda (n/2,) and B (n/2,) of a diagonal model of n states, complex128.

    Args:
        init: "legs" the frequencies of HiPPO-LegS, with its B; "lin" pi k; "inv"
            (n/pi)(n/(2k+1) - 1), their approximation; "real" -(k+1) without frequencies. All but
            "real" have the real part -1/2, all but "legs" B = 1.
        n: number of states, even.
    Raises:
        ConfigError: another init.

    Source: Gu, Gupta, Goel & Re 2022, arXiv:2206.11893, Table 1 (S4D-LegS, -Lin, -Inv, -Real).
    """
    one_of("diagonal_spectrum", "init", init, DIAGONAL_INITS)
    if init == "legs":
        model = legs(n)
        return model.Lambda, confined_B(model.B)
    k = torch.arange(n // 2, dtype=torch.float64)
    half = torch.full_like(k, 0.5)
    decay, frequency = {
        "lin": (half, math.pi * k),
        "inv": (half, n / math.pi * (n / (2 * k + 1) - 1)),
        "real": (1 + k, torch.zeros_like(k)),
    }[init]
    return torch.complex(-decay, -frequency), torch.ones_like(k) + 0j
