"""The kernel of S4D as the sum that defines it, over a table of all powers."""

from __future__ import annotations

import torch
from torch import Tensor


def log_vandermonde_reference(v: Tensor, x: Tensor, l: int) -> Tensor:
    """Return K[..., h, t] = 2 Re sum_n v[..., h, n] exp(t x[h, n]) for t = 0 ... l-1.

    Arguments, result and errors: see `ssm_kernels.log_vandermonde`. In complex64 the angles t Im x
    are rounded to float32: at t |Im x| = 1e5 they are off by 4e-3.

    Cost: O(h n l) time per leading index of v, O(h n l) memory.
    """
    dtype = torch.promote_types(v.dtype, x.dtype)
    v, x = v.to(dtype), x.to(dtype)
    t = torch.arange(l, dtype=dtype.to_real(), device=x.device)
    powers = torch.exp(x.unsqueeze(-1) * t)
    return 2 * torch.einsum("...hn,hnl->...hl", v, powers).real
