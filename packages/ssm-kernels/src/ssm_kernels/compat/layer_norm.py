"""mamba_ssm.ops.triton.layer_norm: norms that add the residual first."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .norms import normalize, wide_dtype


class Added(NamedTuple):
    """What is normed, and what the next block adds to."""

    total: Tensor
    """Sum of the branches and the residual, in the type of sums."""
    residual: Tensor
    """The same in the type of the residual stream."""
    masks: tuple[Tensor | None, Tensor | None]


class Dropout(NamedTuple):
    """What happens to the branches before."""

    p: float
    rowscale: Tensor | None


def layer_norm_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None = None,
    x1: Tensor | None = None,
    weight1: Tensor | None = None,
    bias1: Tensor | None = None,
    eps: float = 1e-6,
    dropout_p: float = 0.0,
    rowscale: Tensor | None = None,
    prenorm: bool = False,
    residual_in_fp32: bool = False,
    is_rms_norm: bool = False,
    return_dropout_mask: bool = False,
) -> Tensor | tuple[Tensor | None, ...]:
    """Add up, then norm: y = norm(dropout(x rowscale) + dropout(x1) + residual).

    Args:
        x: (..., d).
        weight: (d,).
        bias: (d,) or None.
        residual: (..., d), or None for none.
        x1: (..., d) of a parallel branch, or None.
        weight1: (d,) of a second norm of the same sum; None for one norm.
        bias1: (d,) of the second norm, or None.
        eps: added to the variance or the mean square.
        dropout_p: share of the entries of x and of x1 that are set to 0; the rest is scaled up.
        rowscale: (...,) factor of each row of x, or None.
        prenorm: also return the sum, the residual of the next block.
        residual_in_fp32: the type of that sum if there is no residual yet: float32, not that of x.
            It is always the type of a residual that is given.
        is_rms_norm: RMS norm.
        return_dropout_mask: also return which entries were kept, of x and of x1 (None without
            dropout or without x1).

    Returns:
        y (..., d) in the type of x, or a tuple of y, the second y (with weight1), the sum (with
        prenorm) and the two masks (with return_dropout_mask).

    Raises:
        NotImplementedError: rowscale together with x1.

    Cost: O(size of x), in PyTorch operations; the RMS norm without gradients runs as one kernel.
    """
    if rowscale is not None and x1 is not None:
        raise NotImplementedError(
            "layer_norm_fn: rowscale is not supported together with x1; scale x before the call"
        )
    added = add(x, x1, residual, Dropout(dropout_p, rowscale), residual_in_fp32)

    def norm(scale: Tensor, shift: Tensor | None) -> Tensor:
        return normalize(added.total, scale, shift, eps, is_rms=is_rms_norm).to(x.dtype)

    y = norm(weight, bias)
    results: list[Tensor | None] = [y]
    if weight1 is not None:
        results.append(norm(weight1, bias1))
    if prenorm:
        results.append(added.residual)
    if return_dropout_mask:
        results.extend(added.masks)
    return tuple(results) if len(results) > 1 else y


def rms_norm_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None = None,
    x1: Tensor | None = None,
    weight1: Tensor | None = None,
    bias1: Tensor | None = None,
    eps: float = 1e-6,
    dropout_p: float = 0.0,
    rowscale: Tensor | None = None,
    prenorm: bool = False,
    residual_in_fp32: bool = False,
    return_dropout_mask: bool = False,
) -> Tensor | tuple[Tensor | None, ...]:
    """Compute `layer_norm_fn` with the RMS norm; arguments and results as there."""
    return layer_norm_fn(
        *(x, weight, bias, residual, x1, weight1, bias1, eps, dropout_p, rowscale),
        *(prenorm, residual_in_fp32, True, return_dropout_mask),
    )


def layer_norm_linear_fn(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor | None,
    linear_weight: Tensor,
    linear_bias: Tensor | None,
    residual: Tensor | None = None,
    eps: float = 1e-6,
    prenorm: bool = False,
    residual_in_fp32: bool = False,
    is_rms_norm: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Compute `layer_norm_fn`, then a linear layer (m, d); with `prenorm` return the sum too."""
    added = add(x, None, residual, Dropout(0.0, None), residual_in_fp32)
    y = normalize(added.total, norm_weight, norm_bias, eps, is_rms=is_rms_norm).to(x.dtype)
    out = F.linear(y, linear_weight, linear_bias)
    return (out, added.residual) if prenorm else out


class RMSNorm(nn.Module):
    """RMS norm with a weight, which can add a residual first; see `rms_norm_fn`.

    Keys of the state dict: `weight` (d,).
    """

    def __init__(
        self,
        hidden_size: int,
        eps: float = 1e-5,
        dropout_p: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.eps = eps
        self.drop = nn.Dropout(dropout_p) if dropout_p > 0.0 else None
        self.weight = nn.Parameter(torch.empty(hidden_size, device=device, dtype=dtype))
        self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.ones_(self.weight)

    def forward(
        self,
        x: Tensor,
        residual: Tensor | None = None,
        prenorm: bool = False,
        residual_in_fp32: bool = False,
    ) -> Tensor | tuple[Tensor | None, ...]:
        """Return y (..., d), with `prenorm` also the sum of x and the residual."""
        return rms_norm_fn(
            *(x, self.weight, None, residual),
            eps=self.eps,
            dropout_p=self.drop.p if self.drop is not None and self.training else 0.0,
            prenorm=prenorm,
            residual_in_fp32=residual_in_fp32,
        )


def add(
    x: Tensor,
    x1: Tensor | None,
    residual: Tensor | None,
    dropout: Dropout,
    residual_in_fp32: bool,
) -> Added:
    """Add the branches and the residual up, in the type of sums."""
    total, mask1 = x.to(wide_dtype(x)), None
    if dropout.rowscale is not None:
        total = total * dropout.rowscale.unsqueeze(-1).to(total.dtype)
    total, mask = _drop(total, dropout.p)
    if x1 is not None:
        other, mask1 = _drop(x1.to(total.dtype), dropout.p)
        total = total + other
    if residual is not None:
        total = total + residual.to(total.dtype)
        stream = residual.dtype
    else:
        stream = torch.promote_types(x.dtype, torch.float32) if residual_in_fp32 else x.dtype
    return Added(total, total.to(stream), (mask, mask1))


def _drop(x: Tensor, p: float) -> tuple[Tensor, Tensor | None]:
    if p == 0.0:
        return x, None
    kept = torch.rand_like(x) >= p
    return torch.where(kept, x / (1.0 - p), 0.0), kept
