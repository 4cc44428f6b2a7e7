"""The state space model inside S5 as functions of its matrices: one system for all features.

    x[t] = Lb x[t-1] + Bb u[t]        u: (b, l, h), x: (b, l, p) complex
    y[t] = Re(C x[t])

Inputs and outputs are real, so both products with complex matrices are real ones of the same
number of multiplications: real and imaginary parts lie side by side.

Source: Smith, Warrington & Linderman 2023, arXiv:2208.04933, Eq. 2 and sections 3.2, A and B.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

Discretization = Literal["zoh", "bilinear"]
DISCRETIZATIONS: tuple[str, ...] = get_args(Discretization)


class Discrete(NamedTuple):
    """A diagonal system in steps."""

    factor: Tensor
    """Lb (p,) complex."""
    gain: Tensor
    """(p,) complex; Bb = gain B~."""


def expm1(z: Tensor) -> Tensor:
    """Return exp(z) - 1 of a complex z, with all digits where z is small.

    Re = expm1(a) cos b - 2 sin(b/2)^2, Im = exp(a) sin b for z = a + ib; no term overflows for
    a <= 0.
    """
    a, b = z.real, z.imag
    real = torch.expm1(a) * torch.cos(b) - 2 * torch.sin(b / 2).square()
    return torch.complex(real, torch.exp(a) * torch.sin(b))


def discretize(Lambda: Tensor, step: Tensor, method: Discretization) -> Discrete:
    """Discretise x' = Lambda x + B u with the step sizes `step`.

    Args:
        Lambda: (p,) complex eigenvalues, unit: 1/time; none of them 0 for "zoh".
        step: (p,) real, > 0, unit: time.
        method: "zoh", u constant over a step: Lb = exp(Lambda step), gain = (Lb - 1)/Lambda; or
            "bilinear": Lb = (1 + Lambda step/2)/(1 - Lambda step/2), gain = step/(1 - Lambda
            step/2).
    """
    z = Lambda * step
    if method == "zoh":
        return Discrete(torch.exp(z), expm1(z) / Lambda)
    half = z / 2
    inverse = torch.reciprocal(1 - half)
    return Discrete(inverse * (1 + half), inverse * step)


def drive(u: Tensor, B: Tensor, gain: Tensor) -> Tensor:
    """Return Bb u (b, l, p) complex for u (b, l, h) real and B~ (p, h) complex."""
    Bb = torch.view_as_real(gain.unsqueeze(1) * B)
    weight = Bb.transpose(1, 2).flatten(0, 1)  # (2p, h)
    return torch.view_as_complex(F.linear(u, weight).unflatten(-1, (B.shape[0], 2)))


def read(x: Tensor, C: Tensor) -> Tensor:
    """Return Re(C x) (b, l, h) real for x (b, l, p) and C (h, p) complex."""
    weight = torch.view_as_real(C.conj_physical()).flatten(1)  # Re(c x) = Re c Re x - Im c Im x
    return F.linear(torch.view_as_real(x).flatten(-2), weight)


def advance(
    u: Tensor, x: Tensor, B: Tensor, C: Tensor, discrete: Discrete
) -> tuple[Tensor, Tensor]:
    """Do one step: u (b, h) real, x (b, p) the state; return Re(C x) (b, h) and the next state.

    What `drive`, a scan and `read` do, without a new matrix made of B or C: for one step that would
    take longer than the products.
    """
    driven = torch.mm(u.to(B.dtype), B.T) * discrete.gain
    x = torch.addcmul(driven, discrete.factor, x)
    conjugate = torch.view_as_real(x.conj_physical()).flatten(1)
    return F.linear(conjugate, torch.view_as_real(C).flatten(1)), x
