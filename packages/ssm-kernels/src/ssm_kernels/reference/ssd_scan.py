"""The state space dual scan of Mamba-2 as a plain loop over the steps, taken apart with `unbind`."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ..checks import compute_dtype


def ssd_scan_reference(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    *,
    dt_limit: tuple[float, float] = (0.0, math.inf),
    initial_state: Tensor | None = None,
    return_final_state: bool = False,
    reverse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Scan S = exp(dt A) S + dt x B^T over the steps; y = S C + D x, gated by silu(z).

    Arguments, result and errors: see `ssm_kernels.ssd_scan`.

    Cost: O(b l h p n) time; the backward pass keeps every state, O(b l h p n) memory.
    Source: Dao & Gu 2024, arXiv:2405.21060, Section 5 (the recurrent form).
    """
    state = compute_dtype(x, dt, B, C, z)
    b, l, h, p = x.shape
    n = B.shape[3]

    inputs = x.to(state)
    step = dt.to(state)
    if dt_bias is not None:
        step = step + dt_bias.to(state)
    if dt_softplus:
        step = F.softplus(step)
    step = step.clamp(*dt_limit)

    decay_per_step = torch.exp(step * A.to(state)).unsqueeze(-1).unsqueeze(-1).unbind(1)
    drive_per_step = (step.unsqueeze(-1) * inputs).unsqueeze(-1).unbind(1)  # (b, h, p, 1) each
    B_per_step = _rows_per_step(B.to(state), h)
    C_per_step = _rows_per_step(C.to(state), h)
    S = x.new_zeros(b, h, p, n, dtype=state) if initial_state is None else initial_state.to(state)
    if l == 0:
        S = S.clone()  # the final state must not share memory with the initial one

    outputs: list[Tensor] = [inputs] * l
    for t in reversed(range(l)) if reverse else range(l):
        S = decay_per_step[t] * S + drive_per_step[t] * B_per_step[t]
        outputs[t] = (S * C_per_step[t]).sum(-1)

    y = torch.stack(outputs, 1) if l > 0 else inputs
    if D is not None:
        y = y + (D if D.dim() == 2 else D.unsqueeze(-1)).to(state) * inputs
    if z is not None:
        y = y * F.silu(z.to(state))
    y = y.to(x.dtype)
    return (y, S) if return_final_state else y


def _rows_per_step(M: Tensor, h: int) -> tuple[Tensor, ...]:
    """Return B or C as l tensors (b, h, 1, n), one row per head."""
    return M.repeat_interleave(h // M.shape[2], dim=2).unsqueeze(3).unbind(1)
