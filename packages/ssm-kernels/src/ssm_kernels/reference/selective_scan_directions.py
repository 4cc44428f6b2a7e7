"""Scans of the same steps in several orders: one scan of a permuted copy per order, summed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..checks import compute_dtype
from .selective_scan import selective_scan_reference


def selective_scan_directions_reference(
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
    directions: Sequence[str],
    columns: int | None = None,
) -> Tensor:
    """Sum one selective scan per direction, then gate by silu(z).

    Arguments, result and errors: see `ssm_kernels.selective_scan_directions`.

    Cost: O(k b l d n) time; the backward pass keeps every state, O(k b l d n) memory.
    """
    real = compute_dtype(u, delta, z, B, C)
    y = torch.zeros_like(delta[:, :, 0], dtype=real)
    for k, direction in enumerate(directions):
        order = _order(direction, u.shape[1], columns)
        back = order.argsort()
        one = selective_scan_reference(
            (u if u.dim() == 3 else u[:, :, k])[:, order].to(real),
            delta[:, order, k],
            A[k],
            B[:, order, k],
            C[:, order, k],
            None if D is None else D[k],
            None,
            None if delta_bias is None else delta_bias[k],
            delta_softplus,
        )
        assert isinstance(one, Tensor)
        y = y + one[:, back]
    if z is not None:
        y = y * F.silu(z.to(real))
    return y.to(u.dtype)


def _order(direction: str, l: int, columns: int | None) -> Tensor:
    """Return the steps in the order in which a direction visits them."""
    steps = torch.arange(l)
    if direction in ("down", "up"):
        assert columns is not None
        steps = steps.unflatten(0, (-1, columns)).T.flatten() if l else steps
    return steps.flip(0) if direction in ("backward", "up") else steps
