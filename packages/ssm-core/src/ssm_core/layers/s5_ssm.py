"""The state space model inside S5 as functions of its matrices: one system for all features.

    x[t] = Lb x[t-1] + Bb u[t]        u: (b, l, h), x: (b, l, p) complex
    y[t] = Re(C x[t])

Inputs and outputs are real, so both products with complex matrices are real ones of the same
number of multiplications: real and imaginary parts lie side by side.

Source: Smith, Warrington & Linderman 2023, arXiv:2208.04933, Eq. 2 and sections 3.2, A and B.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ssm_core.shapes import Activations, OneStep, SystemState


def drive(u: Activations, gain: Tensor, B: Tensor) -> Tensor:
    """Return Bb u (b, l, p) complex for u (b, l, h) real, where Bb = gain B, (p,) and (p, h)."""
    Bb = torch.view_as_real(gain.unsqueeze(1) * B)
    weight = Bb.transpose(1, 2).flatten(0, 1)  # (2p, h)
    return torch.view_as_complex(F.linear(u, weight).unflatten(-1, (B.shape[0], 2)))


def read(x: Tensor, C: Tensor) -> Activations:
    """Return Re(C x) (b, l, h) real for x (b, l, p) and C (h, p) complex."""
    weight = torch.view_as_real(C.conj_physical()).flatten(1)  # Re(c x) = Re c Re x - Im c Im x
    return F.linear(torch.view_as_real(x).flatten(-2), weight)


def advance(
    u: OneStep, x: SystemState, factor: Tensor, gain: Tensor, B: Tensor, C: Tensor
) -> tuple[OneStep, SystemState]:
    """Do one step: u (b, h) real, x (b, p) the state; return Re(C x) (b, h) and the next state.

    What `drive`, a scan with `factor` (p,) and `read` do, without a new matrix made of B or C: for
    one step that would take longer than the products.
    """
    x = torch.addcmul(torch.mm(u.to(B.dtype), B.T) * gain, factor, x)
    conjugate = torch.view_as_real(x.conj_physical()).flatten(1)
    return F.linear(conjugate, torch.view_as_real(C).flatten(1)), x
