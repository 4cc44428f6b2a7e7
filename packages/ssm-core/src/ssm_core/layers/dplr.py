"""Diagonal plus low-rank state space models: the mathematics of S4, as functions of tensors.

Each of h features is a model x' = A x + B u, y = C x with A = diag(Lambda) - P P^*, whose N states
come in conjugate pairs. Of each pair one is stored, n = N/2 complex numbers, so that a sum over the
states is 2 Re(sum over n). With the step sizes dt absorbed,

    lambda = dt Lambda,  beta = dt B,  p = dt P,  q = conj(P)

the bilinear transform gives a diagonal plus rank-one matrix again, in closed form:

    Abar = (2 - A)^-1 (2 + A) = 1 + diag(delta) - U W^T         Bbar = 2 (2 - A)^-1 beta
    K[j] = C Abar^j Bbar

Powers of Abar are dense. They are made of *real* matrices (N, N) on (Re x, Im x): a quarter of the
work of complex ones on (x, conj x), with the same result.

The convolution kernel K needs no powers if the stored coefficients are C~ = C (1 - Abar^l) instead
of C: the truncated generating function of K at the l-th roots of unity is then a rational function.

Source: Gu, Goel & Re 2021, arXiv:2111.00396, section 3 and Appendix C.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ssm_kernels import cauchy


class DPLR(NamedTuple):
    """A continuous model with the step sizes absorbed, all complex."""

    lambda_: Tensor
    """(h, n), Re < 0"""
    p: Tensor
    """(h, n)"""
    q: Tensor
    """(h, n)"""
    beta: Tensor
    """(h, n)"""


class Discrete(NamedTuple):
    """A bilinear model: Abar x = x + delta x - U both(W x), all (h, n) and complex.

    delta, not 1 + delta: rounded to float32, a factor near 1 would be wrong by as much in every
    step, and slow states live for thousands of steps.
    """

    delta: Tensor
    U: Tensor
    W: Tensor
    Bbar: Tensor


def both(x: Tensor) -> Tensor:
    """Return the sum of x (..., n) over the conjugate pairs, real (...)."""
    return 2 * x.real.sum(-1)


def discretise(model: DPLR) -> Discrete:
    """Discretise by the bilinear transform (Sherman-Morrison for the inverse)."""
    lambda_, p, q, beta = model
    D = 1 / (2 - lambda_)
    W, Dp = q * D, D * p
    # 1 + q D p is real and at least 1: each term of the sum is dt |P|^2 Re D > 0
    scaled = Dp / (1 + both(q * Dp)).unsqueeze(-1)
    Bbar = 2 * (D * beta - scaled * both(W * beta).unsqueeze(-1))
    return Discrete(2 * lambda_ * D, 4 * scaled, W, Bbar)


def step(model: Discrete, x: Tensor, u: Tensor) -> Tensor:
    """Return the states after one step: Abar x + Bbar u, for x (b, h, n) and u (b, h)."""
    pairs = both(model.W * x).unsqueeze(-1)
    return x + (model.delta * x - model.U * pairs + model.Bbar * u.unsqueeze(-1))


def as_column(x: Tensor) -> Tensor:
    """Return complex states (..., n) as real ones (..., N)."""
    return torch.cat([x.real, x.imag], dim=-1)


def from_column(x: Tensor) -> Tensor:
    """Undo `as_column`."""
    real, imag = x.chunk(2, dim=-1)
    return torch.complex(real, imag)


def as_row(C: Tensor) -> Tensor:
    """Return coefficients (..., n) as real ones (..., N): as_row(C) . as_column(x) = both(C x)."""
    return torch.cat([2 * C.real, -2 * C.imag], dim=-1)


def from_row(C: Tensor) -> Tensor:
    """Undo `as_row`."""
    real, imag = C.chunk(2, dim=-1)
    return torch.complex(real, -imag) / 2


def as_matrix(model: Discrete) -> Tensor:
    """Return Abar (h, N, N), real, acting on columns."""
    real, imag = (1 + model.delta.real).diag_embed(), model.delta.imag.diag_embed()
    diagonal = torch.cat([torch.cat([real, -imag], -1), torch.cat([imag, real], -1)], -2)
    return diagonal - as_column(model.U).unsqueeze(-1) * as_row(model.W).unsqueeze(-2)


def power(A: Tensor, l: int) -> Tensor:
    """Return A^l of matrices (..., N, N) for l >= 1, in 2 log2(l) products at most."""
    result = None
    while True:
        if l & 1:
            result = A if result is None else result @ A
        l >>= 1
        if not l:
            assert result is not None
            return result
        A = A @ A


def absorb(C: Tensor, A_power: Tensor) -> Tensor:
    """Return C~ = C (1 - Abar^l) for C (c, h, n), from Abar^l (h, N, N)."""
    row = as_row(C)
    return from_row(row - _times(row, A_power))


def absorb_steps(C: Tensor, A: Tensor, l: int) -> Tensor:
    """Return C (1 - Abar^l) from Abar, for any l < 2^31 that a graph learns when it runs.

    Cost: O(h N^3) time, 31 products, whatever l is.
    """
    row = rows = as_row(C)
    steps = torch.full((), l, dtype=torch.int64, device=A.device)
    for i in range(31):
        rows = torch.where(((steps >> i) & 1).bool(), _times(rows, A), rows)
        A = A @ A
    return from_row(row - rows)


def double(C: Tensor, A_power: Tensor) -> Tensor:
    """Return C~ for 2 l steps, C~ (1 + Abar^l), from that for l steps."""
    row = as_row(C)
    return from_row(row + _times(row, A_power))


def recover(C: Tensor, A_power: Tensor) -> Tensor:
    """Return C from C~ (c, h, n): solve C (1 - Abar^l) = C~.

    What the input has almost not decayed after l steps is almost lost in C~: the error grows with
    1/(l dt |Re Lambda|) where that is large.
    """
    rows = as_row(C).permute(1, 2, 0)  # (h, N, c)
    matrix = torch.eye(A_power.shape[-1], dtype=A_power.dtype, device=A_power.device) - A_power
    # not `solve`: that waits for the device to learn whether a matrix was singular
    result, _ = torch.linalg.solve_ex(matrix.mT, rows)
    return from_row(result.permute(2, 0, 1))


def _times(row: Tensor, matrix: Tensor) -> Tensor:
    """Return rows (c, h, N) times matrices (h, N, N)."""
    return (row.transpose(0, 1) @ matrix).transpose(0, 1)


def convolution_kernel(model: DPLR, C: Tensor, l: int, dtype: torch.dtype) -> Tensor:
    """Return K (c, h, l), real, from C~ (c, h, n) for l steps.

    Args:
        dtype: complex type of the computation, complex64 or complex128. The nodes and the models
            are made in double precision and then rounded.

    The node w = -1 of even l, where the bilinear transform is infinite, has the exact limit
    Re(sum beta C~) over the stored half.

    Cost: O(c h n l) time, O(c h l) memory, and FFTs of length l.
    Source: Gu, Goel & Re 2021, arXiv:2111.00396, Lemma C.3 and Algorithm 1.
    """
    k = torch.arange((l + 1) // 2, dtype=torch.float64, device=C.device)
    # 2 (1 - w) / (1 + w) at w = exp(-2 pi i k / l), and 2 / (1 + w) = 1 + z/2
    tangent = torch.tan(k * math.pi / l)
    z = torch.complex(torch.zeros_like(tangent), 2 * tangent)
    left, right = torch.stack([model.beta, model.p]), torch.cat([C, model.q.unsqueeze(0)])
    v = left.unsqueeze(1) * right  # (2, c + 1, h, n)
    R = cauchy(v.to(dtype), z.to(dtype), model.lambda_.to(dtype))
    R_beta, R_p = R.unbind(0)
    spectrum = R_beta[:-1] - R_beta[-1] * (R_p[:-1] / (1 + R_p[-1]))
    spectrum = (1 + z / 2).to(dtype) * spectrum
    if l % 2 == 0:
        limit = v[0, :-1].real.sum(-1, keepdim=True)
        spectrum = torch.cat([spectrum, limit.to(dtype)], dim=-1)
    return torch.fft.irfft(spectrum, n=l)
