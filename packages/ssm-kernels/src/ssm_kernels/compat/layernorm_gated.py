"""mamba_ssm.ops.triton.layernorm_gated: norms over groups of channels with a gate (Mamba-2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .norms import normalize, wide_dtype


def layernorm_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    z: Tensor | None = None,
    eps: float = 1e-6,
    group_size: int | None = None,
    norm_before_gate: bool = True,
    is_rms_norm: bool = False,
) -> Tensor:
    """Norm groups of channels and gate: norm(x) silu(z), or norm(x silu(z)).

    Args:
        x: (..., d).
        weight: (d,).
        bias: (d,) or None.
        z: (..., d) gate; None means no gate.
        eps: added to the variance or the mean square.
        group_size: channels per group, a divisor of d; None means d.
        norm_before_gate: gate after the norm and its weight; False gates first.
        is_rms_norm: RMS norm.

    Returns:
        y (..., d) in the type of x.

    Cost: O(size of x), in PyTorch operations.
    Source: Dao & Gu 2024, arXiv:2405.21060, Section 7.1.
    """
    values = x.to(wide_dtype(x))
    gate = None if z is None else F.silu(z.to(values.dtype))
    if gate is not None and not norm_before_gate:
        values = values * gate
    groups = values.unflatten(-1, (-1, group_size or x.shape[-1]))
    plain = values.new_ones(groups.shape[-1])
    y = normalize(groups, plain, None, eps, is_rms=is_rms_norm).flatten(-2)
    y = y * weight.to(y.dtype)
    if bias is not None:
        y = y + bias.to(y.dtype)
    if gate is not None and norm_before_gate:
        y = y * gate
    return y.to(x.dtype)


def rmsnorm_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    z: Tensor | None = None,
    eps: float = 1e-6,
    group_size: int | None = None,
    norm_before_gate: bool = True,
) -> Tensor:
    """Compute `layernorm_fn` with the RMS norm; arguments and result as there."""
    return layernorm_fn(x, weight, bias, z, eps, group_size, norm_before_gate, True)


class LayerNorm(nn.Module):
    """Layer norm over groups of channels with a gate; see `layernorm_fn`.

    Keys of the state dict: `weight` and `bias` (d,).
    """

    def __init__(
        self,
        hidden_size: int,
        eps: float = 1e-5,
        group_size: int | None = None,
        norm_before_gate: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.eps = eps
        self.group_size = group_size
        self.norm_before_gate = norm_before_gate
        self.weight = nn.Parameter(torch.empty(hidden_size, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(hidden_size, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        """Return norm(x) silu(z), or norm(x silu(z)), (..., d)."""
        return layernorm_fn(
            *(x, self.weight, self.bias, z, self.eps, self.group_size, self.norm_before_gate)
        )


class RMSNorm(nn.Module):
    """RMS norm over groups of channels with a gate; see `layernorm_fn`.

    Keys of the state dict: `weight` (d,).
    """

    def __init__(
        self,
        hidden_size: int,
        eps: float = 1e-5,
        group_size: int | None = None,
        norm_before_gate: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.eps = eps
        self.group_size = group_size
        self.norm_before_gate = norm_before_gate
        self.weight = nn.Parameter(torch.empty(hidden_size, device=device, dtype=dtype))
        self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.ones_(self.weight)

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        """Return norm(x) silu(z), or norm(x silu(z)), (..., d)."""
        return rmsnorm_fn(
            *(x, self.weight, None, z, self.eps, self.group_size, self.norm_before_gate)
        )
