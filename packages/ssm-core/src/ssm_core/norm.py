"""Normalisation over channels: RMSNorm, plain or gated, and LayerNorm; statistics in float32.

All return the type of their weight, whatever the type of the residual stream: a model in bfloat16
keeps its residual in float32 and still feeds bfloat16 to its mixers.

Sources: Zhang & Sennrich 2019, arXiv:1910.07467 (RMSNorm); Ba et al. 2016, arXiv:1607.06450
(LayerNorm).
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssm_core.errors import ConfigError
from ssm_core.layers.checks import one_of, positive_int
from ssm_core.shapes import Activations, Inner
from ssm_kernels import fused_gated_rms_norm, fused_rms_norm

NormName = Literal["rms", "layer"]
NORM_NAMES: tuple[str, ...] = get_args(NormName)

# The sums of a scan grow with the fourth power of its input, and their squares leave float32. A
# power of two changes no digit.
_SMALLER = 2.0**-32


def at_least_float32(x: Tensor) -> Tensor:
    """Return x in float32, or untouched if it is float32 or float64."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


class RMSNorm(nn.Module):
    """y = x / sqrt(mean(x^2) + eps) * weight over the last axis; no mean removal, no bias."""

    def __init__(self, d_model: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(positive_int("RMSNorm", "d_model", d_model)))
        self.eps = eps

    def forward(self, x: Activations) -> Activations:
        """Normalise x (..., d); the result has the type of `weight`."""
        x, weight = at_least_float32(x), self.weight
        if not torch.is_grad_enabled():
            y = fused_rms_norm(x, weight, self.eps)
            if y is not None:
                return y
        if x.dtype is weight.dtype:  # conversions cost a microsecond each even when idle
            return F.rms_norm(x, weight.shape, weight, self.eps)
        return F.rms_norm(x, weight.shape, weight.to(x.dtype), self.eps).to(weight.dtype)

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}, eps={self.eps}"


class GatedRMSNorm(nn.Module):
    """v / sqrt(mean(v^2) + eps) * weight with v = y silu(z): the last norm inside Mamba-2.

    The mean is that of a group of d / groups neighbouring channels. With `norm_before_gate` v is y
    alone, and silu(z) multiplies the result. With `width` the mean is taken as if there were so
    many channels, the missing ones zero: what is left of a norm when whole heads are removed.

    Source: Dao & Gu 2024, arXiv:2405.21060, section 7.
    """

    def __init__(
        self,
        d_model: int,
        groups: int = 1,
        norm_before_gate: bool = False,
        eps: float = 1e-5,
        width: int | None = None,
    ) -> None:
        """Make the norm of `d_model` channels.

        Raises:
            ConfigError: `groups` does not divide `d_model`, or `width` is smaller.
        """
        super().__init__()
        self.weight = nn.Parameter(torch.ones(positive_int("GatedRMSNorm", "d_model", d_model)))
        if d_model % positive_int("GatedRMSNorm", "groups", groups):
            raise ConfigError(
                f"GatedRMSNorm: groups is {groups}, expected a divisor of d_model = {d_model}"
            )
        self.groups = groups
        self.norm_before_gate = norm_before_gate
        self.eps = eps
        self.excess = _excess("GatedRMSNorm", d_model, width)

    def forward(self, y: Inner, z: Inner) -> Inner:
        """Normalise y (..., d) and gate it by z (..., d); the result has the type of `weight`."""
        y, z = at_least_float32(y), at_least_float32(z)
        if not self.norm_before_gate and not torch.is_grad_enabled():
            weight, eps = self._as_if_of_width(self.weight, self.eps)
            fused = fused_gated_rms_norm(y, z, weight, eps, self.groups)
            if fused is not None:
                return fused
        gate = F.silu(z)
        y = y * _SMALLER if self.norm_before_gate else y * (gate * _SMALLER)
        weight, eps = self._as_if_of_width(self.weight.to(y.dtype), self.eps * _SMALLER**2)
        if self.groups == 1:
            y = F.rms_norm(y, weight.shape, weight, eps)
        else:
            size = weight.shape[0] // self.groups
            rows = y.unflatten(-1, (self.groups, size))
            y = F.rms_norm(rows, (size,), eps=eps).flatten(-2) * weight
        if self.norm_before_gate:
            y = y * gate
        return y.to(self.weight.dtype)

    def _as_if_of_width(self, weight: Tensor, eps: float) -> tuple[Tensor, float]:
        """Weight and eps that turn the mean over d into that over `width`, which is larger."""
        if self.excess == 1.0:
            return weight, eps
        return weight * self.excess**0.5, eps * self.excess

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}, groups={self.groups}, eps={self.eps}"


class LayerNorm(nn.Module):
    """y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias over the last axis.

    With `width` mean and variance are those of so many channels, the missing ones zero: what is
    left of a norm when channels are removed.
    """

    def __init__(
        self, d_model: int, eps: float = 1e-5, width: int | None = None, bias: bool = True
    ) -> None:
        """Make the norm of `d_model` channels; without `bias` nothing is added.

        Raises:
            ConfigError: `width` is smaller.
        """
        super().__init__()
        self.weight = nn.Parameter(torch.ones(positive_int("LayerNorm", "d_model", d_model)))
        self.bias = nn.Parameter(torch.zeros(d_model)) if bias else None
        self.eps = eps
        self.excess = _excess("LayerNorm", d_model, width)

    def forward(self, x: Activations) -> Activations:
        """Normalise x (..., d); the result has the type of `weight`."""
        x = at_least_float32(x)
        weight = self.weight.to(x.dtype)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        if self.excess != 1.0:
            y = self._among_zeros(x) * weight
            return (y if bias is None else y + bias).to(self.weight.dtype)
        return F.layer_norm(x, weight.shape, weight, bias, self.eps).to(self.weight.dtype)

    def _among_zeros(self, x: Tensor) -> Tensor:
        """Normalise x (..., d) as if it had (excess - 1) d more channels, all zero."""
        mean = x.mean(dim=-1, keepdim=True) / self.excess
        centred = x - mean
        squares = centred.square().mean(dim=-1, keepdim=True) + (self.excess - 1) * mean.square()
        return centred * torch.rsqrt(squares / self.excess + self.eps)

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}, eps={self.eps}"


def _excess(owner: str, d_model: int, width: int | None) -> float:
    """Channels that a norm counts per channel that it has, 1 or more."""
    if width is None:
        return 1.0
    if positive_int(owner, "width", width) < d_model:
        raise ConfigError(f"{owner}: width is {width}, expected at least d_model = {d_model}")
    return width / d_model


def make_norm(
    name: NormName, d_model: int, eps: float = 1e-5, bias: bool = True
) -> RMSNorm | LayerNorm:
    """Return the norm called `name`, "rms" (which never has a bias) or "layer".

    Raises:
        ConfigError: another name.
    """
    one_of("make_norm", "name", name, NORM_NAMES)
    return RMSNorm(d_model, eps) if name == "rms" else LayerNorm(d_model, eps, bias=bias)
