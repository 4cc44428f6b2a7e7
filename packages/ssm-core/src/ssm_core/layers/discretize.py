"""Discretisation of diagonal models: from x' = Lambda x + B u to x[t] = Abar x[t-1] + Bbar u[t].

With z = dt Lambda:

    zoh       Abar = exp(z)                      Bbar = B (exp(z) - 1) / Lambda
    bilinear  Abar = (1 + z/2) / (1 - z/2)       Bbar = B dt / (1 - z/2)

Kernels and scans take powers of Abar as exp(t log Abar), so log Abar is what is returned, computed
from z itself: the logarithm of a rounded Abar near 1 has lost the digits that decide how long the
model remembers. All values and gradients are finite for Re Lambda < 0 and dt > 0, as long as the
squares of Lambda and of 1/dt are.

Source: Gu et al. 2022, arXiv:2206.11893, section 3.1 and Table 1.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

Discretization = Literal["zoh", "bilinear"]
DISCRETIZATIONS: tuple[str, ...] = get_args(Discretization)

#: Squares of larger numbers leave float32. Abar differs from its limit, -1, by 4e-9 there.
_LARGEST_BILINEAR = 1e9
#: |Abar| of the bilinear rule is at least this (it is 0 at dt Lambda = -2, where log Abar ends).
_SMALLEST_BILINEAR = 1e-15


class Discretized(NamedTuple):
    """A diagonal model in discrete time; both complex, (h, n)."""

    log_A: Tensor
    """log Abar"""
    gain: Tensor
    """Bbar / B"""


def discretize(rule: Discretization, Lambda: Tensor, dt: Tensor) -> Discretized:
    """Discretise Lambda (h, n), complex with negative real part, at steps dt (h, 1) or (h, n)."""
    z = dt * Lambda
    if rule == "zoh":
        return Discretized(z, expm1(z) / Lambda)
    a = (z.real / 2).clamp(min=-_LARGEST_BILINEAR)
    b = (z.imag / 2).clamp(min=-_LARGEST_BILINEAR, max=_LARGEST_BILINEAR)
    return Discretized(_log_bilinear(a, b), 1 / (1 / dt - Lambda / 2))


def expm1(z: Tensor) -> Tensor:
    """Return exp(z) - 1 for complex z, Re z <= 0, exact to the last digits also near 0."""
    a, b = z.real, z.imag
    # exp(a) cos b - 1, both terms of the same sign near 0
    real = torch.expm1(a) * torch.cos(b) - 2 * torch.sin(b / 2).square()
    return torch.complex(real, torch.exp(a) * torch.sin(b))


def _log_bilinear(a: Tensor, b: Tensor) -> Tensor:
    """Return log((1 + w) / (1 - w)) for w = a + i b, a <= 0."""
    near_pole = (1 + a).square() + b.square() < _SMALLEST_BILINEAR**2
    above = torch.where(near_pole, _SMALLEST_BILINEAR, 1 + a)
    numerator, denominator = above.square() + b.square(), (1 - a).square() + b.square()
    difference = 4 * a / denominator  # |Abar|^2 - 1
    small = difference > -0.5
    # each form where it has its digits, and a harmless argument where it is not used, because the
    # gradient of a value that is not selected must be finite too
    log_square = torch.where(
        small,
        torch.log1p(torch.where(small, difference, 0)),
        torch.log(torch.where(small, 1, numerator / denominator)),
    )
    return torch.complex(log_square / 2, torch.atan2(b, above) + torch.atan2(b, 1 - a))
