"""mamba_ssm.modules.ssd_minimal: the scan of Mamba-2 from sums over segments, in PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import DTypeError, ShapeError


def segsum(x: Tensor) -> Tensor:
    """Return the sums of x over segments: (..., i, j) is x[j + 1] + .. + x[i], -inf where i < j.

    Args:
        x: (..., l).

    Returns:
        (..., l, l). Each sum adds its own terms alone, so none is a difference of large numbers.
    """
    later = torch.ones(x.shape[-1], x.shape[-1], dtype=torch.bool, device=x.device).tril(-1)
    terms = torch.where(later, x.unsqueeze(-1), 0.0)
    return terms.cumsum(dim=-2).masked_fill(later.mT, -torch.inf)


def segsum_unstable(x: Tensor) -> Tensor:
    """Compute `segsum` from differences of cumulative sums: less memory, and less exact."""
    sums = x.cumsum(dim=-1)
    earlier = torch.ones(x.shape[-1], x.shape[-1], dtype=torch.bool, device=x.device).triu(1)
    return (sums.unsqueeze(-1) - sums.unsqueeze(-2)).masked_fill(earlier, -torch.inf)


# The arguments and their order are the original's.
def ssd_minimal_discrete(
    X: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    block_len: int,
    initial_states: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Scan S[t] = exp(A[t]) S[t-1] + X[t] B[t]^T;  Y[t] = S[t] C[t], block by block.

    Args:
        X: (b, l, h, p) input, times the step size.
        A: (b, l, h) decay, times the step size.
        B: (b, l, h, n).
        C: like B.
        block_len: steps per block, a divisor of l.
        initial_states: (b, 1, h, p, n); None means 0.

    Returns:
        Y (b, l, h, p) and the state after the last step (b, h, p, n).

    Raises:
        DTypeError: the tensors differ in their type.
        ShapeError: block_len does not divide l.

    Cost: O(b h l (block_len (n + p) + n p)), in PyTorch operations.
    Source: Dao & Gu 2024, arXiv:2405.21060, Section 6.
    """
    if not X.dtype == A.dtype == B.dtype == C.dtype:
        raise DTypeError(
            f"ssd_minimal_discrete: X, A, B and C are {X.dtype}, {A.dtype}, {B.dtype} and "
            f"{C.dtype}, expected one type; convert them"
        )
    if X.shape[1] % block_len:
        raise ShapeError(
            f"ssd_minimal_discrete: X has {X.shape[1]} steps, expected a multiple of block_len "
            f"{block_len}; pad it"
        )
    b, _, h, p = X.shape
    state = X.new_zeros(b, h, p, B.shape[-1]) if initial_states is None else initial_states[:, 0]
    outputs = []
    blocks = (part.split(block_len, dim=1) for part in (X, A, B, C))
    for x, a, keys, queries in zip(*blocks, strict=True):
        decay = a.transpose(1, 2)  # (b, h, block)
        since_start = decay.cumsum(dim=-1).exp()
        between = segsum(decay).exp()
        weights = torch.einsum("bihn,bjhn->bhij", queries, keys) * between
        inside = torch.einsum("bhij,bjhp->bihp", weights, x)
        before = torch.einsum("bihn,bhpn,bhi->bihp", queries, state, since_start)
        outputs.append(inside + before)
        added = torch.einsum("bhj,bjhp,bjhn->bhpn", between[..., -1, :], x, keys)
        state = since_start[..., -1, None, None] * state + added
    return torch.cat(outputs, dim=1) if outputs else X.clone(), state
