"""One decode step of the selective scan."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..checks import compute_dtype


def selective_state_update_reference(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
) -> Tensor:
    """Advance `state` in place, h <- exp(dt A) h + dt B x, and return y = C h + D x, gated.

    Arguments, result and errors: see `ssm_kernels.selective_state_update`.

    Cost: O(b d n) time and memory.
    Source: Gu & Dao 2023, arXiv:2312.00752, Eq. 2 (Euler rule for B).
    """
    real = compute_dtype(state, x, dt, z, B, C)
    number = real.to_complex() if A.is_complex() else real

    u = x.to(real)
    step = dt.to(real)
    if dt_bias is not None:
        step = step + dt_bias.to(real)
    if dt_softplus:
        step = F.softplus(step)

    decay = torch.exp(step.unsqueeze(-1) * A.to(number))
    drive = (step * u).unsqueeze(-1) * _row_per_channel(B.to(number), state)
    h = decay * state.to(number) + drive
    s = (_row_per_channel(C.to(number), state) * h).sum(-1)
    # A complex A stores one state of each conjugate pair; the pair sums to twice the real part.
    y = 2 * s.real if s.is_complex() else s
    if D is not None:
        y = y + D.to(real) * u
    if z is not None:
        y = y * F.silu(z.to(real))
    state.copy_(h)
    return y.to(x.dtype)


def _row_per_channel(M: Tensor, state: Tensor) -> Tensor:
    """Return B or C, (b, n) or (b, g, n), so that it broadcasts against the state."""
    if M.dim() == 2:
        M = M.unsqueeze(1)
    rows = M.repeat_interleave(state.shape[1] // M.shape[1], dim=1)  # (b, d, n) or (b, h, n)
    return rows if state.dim() == 3 else rows.unsqueeze(2)
