"""Initial values of S5: the normal part of HiPPO-LegS, block by block, and what is drawn around it.

The model starts as `blocks` copies of the normal part of HiPPO-LegS, A = V diag(Lambda) V^*, with
real random B and complex random C, written in the basis V that makes it diagonal:

    B~ = V^* B        C~ = C V

With conjugate symmetry one eigenvalue of each pair is kept, and with it half of V; B is drawn for
all states even then.

"lecun_normal" is a normal distribution cut at two standard deviations, rescaled to the variance
1/fan_in; fan_in is the product of all axes before the last one.

Source: Smith, Warrington & Linderman 2023, arXiv:2208.04933, sections 3.3, 4.3 and B.1.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from ssm_core.hippo import legs, legs_matrices

CInit = Literal["trunc_standard_normal", "lecun_normal", "complex_normal"]
C_INITS: tuple[str, ...] = get_args(CInit)

#: standard deviation of a standard normal distribution that is cut at -2 and 2
_STD_OF_CUT_NORMAL = 0.87962566103423978


class Basis(NamedTuple):
    """One block of the model; complex128, m of its n states are stored."""

    Lambda: Tensor
    """(m,) eigenvalues by ascending imaginary part."""
    V: Tensor
    """(n, m) orthonormal eigenvectors."""


def basis_of_block(n: int, conj_sym: bool) -> Basis:
    """Diagonalise the normal part of HiPPO-LegS of size n; with `conj_sym` keep n/2 of n states.

    Without it n may be odd; there is one real eigenvalue then.

    Cost: O(n^3), once.
    """
    if conj_sym:
        half = legs(n)
        return Basis(half.Lambda, half.V)
    A, _ = legs_matrices(n)
    P = torch.sqrt(torch.arange(n, dtype=torch.float64) + 0.5)
    S = A + torch.outer(P, P)
    frequencies, V = torch.linalg.eigh(S * -1j)
    return Basis(torch.complex(S.diagonal().mean().expand(n), frequencies), V)


def lecun_normal(*shape: int, fan_in: int) -> Tensor:
    """Draw a tensor of variance 1/fan_in from a normal distribution cut at two deviations."""
    # by the inverse distribution: nn.init.trunc_normal_ looks at values, which a device without
    # data does not have
    within = math.erf(math.sqrt(2))
    draw = torch.empty(shape, dtype=torch.float32).uniform_(-within, within).erfinv()
    draw = (math.sqrt(2) * draw).clamp(-2, 2)  # rounding may step over the edge
    return draw / (_STD_OF_CUT_NORMAL * math.sqrt(fan_in))


def initial_Lambda(basis: Basis, blocks: int) -> tuple[Tensor, Tensor]:
    """Return the real and the imaginary parts (p,) of the eigenvalues, float32."""
    Lambda = basis.Lambda.repeat(blocks)
    return Lambda.real.float(), Lambda.imag.float()


def initial_B(basis: Basis, blocks: int, d_model: int) -> Tensor:
    """Return B~ = V^* B as (p, h, 2), real and imaginary, float32; B of variance 1/(all states)."""
    n = basis.V.shape[0]
    B = lecun_normal(blocks, n, d_model, fan_in=blocks * n).to(basis.V.dtype)
    return torch.view_as_real(basis.V.conj().T @ B).flatten(0, 1).float()


def initial_C(basis: Basis, blocks: int, d_model: int, init: CInit) -> Tensor:
    """Return C~ as (h, p, 2), real and imaginary, float32.

    Each part of C has the variance 1/(all states) for "trunc_standard_normal" (whatever its name
    says) and 1/(h all states) for "lecun_normal", before the product with V. "complex_normal" is
    drawn in the basis V, each part with the variance 1/2.
    """
    n, m = basis.V.shape
    if init == "complex_normal":
        return math.sqrt(0.5) * torch.randn(d_model, blocks * m, 2, dtype=torch.float32)
    fan_in = blocks * n * (d_model if init == "lecun_normal" else 1)
    C = torch.view_as_complex(lecun_normal(d_model, blocks, n, 2, fan_in=fan_in))
    return torch.view_as_real(C.to(basis.V.dtype) @ basis.V).flatten(1, 2).float()


def initial_log_step(p: int, dt_min: float, dt_max: float) -> Tensor:
    """Return logarithms of step sizes (p, 1), float32: uniform, one for each state."""
    log_step = torch.empty(p, 1, dtype=torch.float32)
    return log_step.uniform_(math.log(dt_min), math.log(dt_max))


@torch.no_grad()
def gate(d_model: int) -> nn.Linear:
    """Return a linear map (h, h) that starts as the dense layers of Flax: lecun_normal, no bias."""
    linear = nn.Linear(d_model, d_model)
    linear.weight.copy_(lecun_normal(d_model, d_model, fan_in=d_model))
    linear.bias.zero_()
    return linear
