"""mamba_ssm.ops.triton.layernorm: the norms of mamba_ssm 1.x, at their older path."""

from __future__ import annotations

import torch
from torch import Tensor

from . import layer_norm as newer
from .layer_norm import layer_norm_linear_fn

__all__ = ["RMSNorm", "layer_norm_fn", "layer_norm_linear_fn", "rms_norm_fn"]


def layer_norm_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None = None,
    eps: float = 1e-6,
    prenorm: bool = False,
    residual_in_fp32: bool = False,
    is_rms_norm: bool = False,
) -> Tensor | tuple[Tensor | None, ...]:
    """Compute `mamba_ssm.ops.triton.layer_norm.layer_norm_fn` with the arguments of 1.x."""
    return newer.layer_norm_fn(
        *(x, weight, bias, residual),
        eps=eps,
        prenorm=prenorm,
        residual_in_fp32=residual_in_fp32,
        is_rms_norm=is_rms_norm,
    )


def rms_norm_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None = None,
    prenorm: bool = False,
    residual_in_fp32: bool = False,
    eps: float = 1e-6,
) -> Tensor | tuple[Tensor | None, ...]:
    """Compute `layer_norm_fn` with the RMS norm; the order of the arguments is that of 1.x."""
    return layer_norm_fn(x, weight, bias, residual, eps, prenorm, residual_in_fp32, True)


class RMSNorm(newer.RMSNorm):
    """The RMS norm with the constructor of 1.x, which has no dropout."""

    def __init__(
        self,
        hidden_size: int,
        eps: float = 1e-5,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(hidden_size, eps, 0.0, device, dtype)
