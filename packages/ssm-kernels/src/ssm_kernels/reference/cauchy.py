"""The Cauchy sum of S4 over conjugate pairs, over a table of all fractions."""

from __future__ import annotations

import torch
from torch import Tensor


def cauchy_reference(v: Tensor, z: Tensor, w: Tensor) -> Tensor:
    """Return R[..., h, k] = sum_n v / (z - w) + conj(v) / (z - conj(w)).

    Arguments, result and errors: see `ssm_kernels.cauchy`.

    Cost: O(h n k) time per leading index of v, O(h n k) memory.
    """
    dtype = torch.promote_types(torch.promote_types(v.dtype, z.dtype), w.dtype)
    v, z, w = v.to(dtype), z.to(dtype), w.to(dtype)
    nodes, poles = z.unsqueeze(-2), w.unsqueeze(-1)
    first = torch.einsum("...hn,hnk->...hk", v, 1 / (nodes - poles))
    return first + torch.einsum("...hn,hnk->...hk", v.conj(), 1 / (nodes - poles.conj()))
