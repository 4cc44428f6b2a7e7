"""The addition and the norm between the blocks of mamba_ssm."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from ssm_core.norm import at_least_float32


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
