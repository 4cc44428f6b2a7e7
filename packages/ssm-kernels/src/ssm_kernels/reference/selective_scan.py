"""The selective scan as a plain loop over the steps.

Time is taken apart with `unbind`, never by indexing: the gradient of `x[:, t]` is a full-size
tensor of zeros per step, which makes the backward pass quadratic in the length.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..checks import COMPLEX_OF, compute_dtype


def selective_scan_reference(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    *,
    initial_state: Tensor | None = None,
    return_final_state: bool = False,
    reverse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Scan h = exp(delta A) h + delta B u over the steps; y = C h + D u, gated by silu(z).

    Arguments, result and errors: see `ssm_kernels.selective_scan`.

    Cost: O(b l d n) time; the backward pass keeps every state, O(b l d n) memory.
    Source: Gu & Dao 2023, arXiv:2312.00752, Eq. 2 and Algorithm 2 (Euler rule for B).
    """
    real = compute_dtype(u, delta, z, B if B.dim() > 2 else None, C if C.dim() > 2 else None)
    state = COMPLEX_OF[real] if A.is_complex() else real
    b, l, d = u.shape
    n = A.shape[1]

    x = u.to(real)
    step = delta.to(real)
    if delta_bias is not None:
        step = step + delta_bias.to(real)
    if delta_softplus:
        step = F.softplus(step)

    A = A.to(state)
    B_per_step = _rows_per_step(B.to(state), l, d)
    C_per_step = _rows_per_step(C.to(state), l, d)
    step_per_step = step.unbind(1)
    drive_per_step = (step * x).unbind(1)
    h = x.new_zeros(b, d, n, dtype=state) if initial_state is None else initial_state.to(state)
    if l == 0:
        h = h.clone()  # the final state must not share memory with the initial one

    outputs: list[Tensor] = [x] * l
    for t in reversed(range(l)) if reverse else range(l):
        decay = torch.exp(step_per_step[t].unsqueeze(-1) * A)
        h = decay * h + drive_per_step[t].unsqueeze(-1) * B_per_step[t]
        s = (C_per_step[t] * h).sum(-1)
        # A complex A stores one state of each conjugate pair; the pair sums to twice the real part.
        outputs[t] = 2 * s.real if s.is_complex() else s

    y = torch.stack(outputs, 1) if l > 0 else step * x
    if D is not None:
        y = y + D.to(real) * x
    if z is not None:
        y = y * F.silu(z.to(real))
    y = y.to(u.dtype)
    return (y, h) if return_final_state else y


def _rows_per_step(M: Tensor, l: int, d: int) -> tuple[Tensor, ...]:
    """Return B or C as l tensors that broadcast against (b, d, n)."""
    if M.dim() == 2:  # (d, n): the same at every step
        return (M,) * l
    if M.dim() == 3:  # (b, l, n): shared by all channels
        return M.unsqueeze(2).unbind(1)
    return M.repeat_interleave(d // M.shape[2], dim=2).unbind(1)  # (b, l, g, n)
