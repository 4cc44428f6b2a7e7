"""The diagonal scan as a plain loop over the steps, taken apart with `unbind`."""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks import COMPLEX_OF, compute_dtype


def diagonal_scan_reference(
    a: Tensor,
    u: Tensor,
    *,
    initial_state: Tensor | None = None,
    return_final_state: bool = False,
    reverse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Scan h = a h + u over the steps.

    Arguments, result and errors: see `ssm_kernels.diagonal_scan`.

    Cost: O(b l d) time and memory.
    """
    is_complex = any(x is not None and x.is_complex() for x in (a, u, initial_state))
    state = compute_dtype(a, u)
    result = u.dtype
    if is_complex:
        state, result = COMPLEX_OF[state], COMPLEX_OF[compute_dtype(u)]

    b, l, d = u.shape
    a = a.to(state)
    a = a.expand(b, 1, d) if a.dim() == 1 or a.shape[1] == 1 else a.expand(b, l, d)
    a_per_step = a.unbind(1) * (l if a.shape[1] == 1 else 1)
    u_per_step = u.to(state).unbind(1)
    h = u.new_zeros(b, d, dtype=state) if initial_state is None else initial_state.to(state)
    if l == 0:
        h = h.clone()  # the final state must not share memory with the initial one

    states: list[Tensor] = [h] * l
    for t in reversed(range(l)) if reverse else range(l):
        h = a_per_step[t] * h + u_per_step[t]
        states[t] = h
    y = torch.stack(states, 1) if l > 0 else u.to(state)
    return (y.to(result), h) if return_final_state else y.to(result)
