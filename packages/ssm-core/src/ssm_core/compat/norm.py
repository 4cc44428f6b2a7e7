"""The norms of mamba_ssm as modules, and the add-and-norm of its blocks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssm_core import norm
from ssm_core.compat.placement import convert, made_on
from ssm_core.layers.checks import probability
from ssm_core.norm import at_least_float32


class RMSNorm(norm.RMSNorm):
    """The RMSNorm of `mamba_ssm.ops.triton.layer_norm`, which also adds to a residual stream."""

    bias: None

    def __init__(
        self,
        hidden_size: int,
        eps: float = 1e-5,
        dropout_p: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Make the norm of `hidden_size` channels; `dropout_p` drops numbers of x in training."""
        probability("RMSNorm", "dropout_p", dropout_p)
        with made_on(device):
            super().__init__(hidden_size, eps)
        self.drop = nn.Dropout(dropout_p) if dropout_p else None
        self.register_parameter("bias", None)
        convert(dtype, self)

    def reset_parameters(self) -> None:
        """Set the weight to ones."""
        nn.init.ones_(self.weight)

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        residual: Tensor | None = None,
        prenorm: bool = False,
        residual_in_fp32: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Normalise x (..., d), or x + residual; the result has the type of x.

        Args:
            prenorm: also return the sum.
            residual_in_fp32: the sum is float32 (float64 for such an x) where there is no residual
                that has a type.
        """
        total = x if self.drop is None else self.drop(x)
        wide = at_least_float32(total)
        if residual is not None:
            wide = wide + at_least_float32(residual)
        y = super().forward(wide).to(x.dtype)
        if not prenorm:
            return y
        kept = residual.dtype if residual is not None else x.dtype
        return y, wide if residual is None and residual_in_fp32 else wide.to(kept)


def add_norm(
    module: nn.Module, x: Tensor, residual: Tensor | None, fused: bool, in_float32: bool
) -> tuple[Tensor, Tensor]:
    """Return norm(x + residual) and the sum, both (b, l, d); no residual is zero.

    Args:
        fused: the norm reads the sum as it is, and gives the type of x. Otherwise it reads the sum
            in the type of its weight, and gives that: in half precision it loses digits.
        in_float32: the sum is returned in float32 (float64 stays).
    """
    total = x if residual is None else x + residual
    kept = at_least_float32(total) if in_float32 else total
    if not fused:
        return module(total.to(module.weight.dtype)), kept  # type: ignore[arg-type]
    if isinstance(module, nn.LayerNorm):
        wide = at_least_float32(total)
        weight, bias = (p if p is None else p.to(wide.dtype) for p in (module.weight, module.bias))
        y = F.layer_norm(wide, module.normalized_shape, weight, bias, module.eps)
        return y.to(x.dtype), kept
    return module(at_least_float32(total)).to(x.dtype), kept
