"""The kernels of S4D and S4 in plain PyTorch: by a table over all steps, and more cleverly."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ssm_kernels import cauchy_reference, log_vandermonde_reference


def vandermonde_table(v: Tensor, x: Tensor, l: int) -> Tensor:
    """2 Re sum_n v exp(t x), v and x (h, n) -> (h, l): exp of x[..., None] t, then an einsum."""
    return log_vandermonde_reference(v, x, l)


def vandermonde_products(v: Tensor, x: Tensor, l: int) -> Tensor:
    """The same with two tables of sqrt(l) powers: t = i m + j, and a product of matrices."""
    m = math.isqrt(max(l - 1, 0)) + 1
    rows = math.ceil(l / m)
    i = m * torch.arange(rows, dtype=x.real.dtype)
    j = torch.arange(m, dtype=x.real.dtype)
    first = v.unsqueeze(-1) * torch.exp(x.unsqueeze(-1) * i)  # (h, n, rows)
    second = torch.exp(x.unsqueeze(-1) * j)  # (h, n, m)
    # the real part alone, of real products: half the work of a complex one
    left = torch.cat([first.real, -first.imag], 1)
    right = torch.cat([second.real, second.imag], 1)
    return 2 * (left.transpose(1, 2) @ right).flatten(1)[:, :l]


def cauchy_table(v: Tensor, z: Tensor, w: Tensor) -> Tensor:
    """sum_n v / (z - w) + its conjugate's, v and w (h, n), z (k,) -> (h, k): tables 1 / (z - w)."""
    return cauchy_reference(v, z, w)


def cauchy_joined(v: Tensor, z: Tensor, w: Tensor) -> Tensor:
    """The same, both fractions of a pair joined to one with real coefficients: one table.

    v / (z - w) + conj(v) / (z - conj(w)) = 2 (Re(v) z - Re(v conj(w))) / (z^2 - 2 Re(w) z + |w|^2)
    """
    poles = w.unsqueeze(-1)
    table = 1 / (z * z - 2 * poles.real * z + (poles * poles.conj()).real)  # (h, n, k)
    numerators = torch.stack([v.real, (v * w.conj()).real], 1).to(table.dtype)  # (h, 2, n)
    sums = numerators @ table
    return 2 * (sums[:, 0] * z - sums[:, 1])
