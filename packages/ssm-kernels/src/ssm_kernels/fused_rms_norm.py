"""The RMS norm, plain or gated, as one kernel where no gradient is wanted."""

from __future__ import annotations

import torch
from torch import Tensor

from . import native
from .checks import wrong_shape
from .errors import ArgumentError
from .library import runs_unwatched

NAME = "fused_rms_norm"
GATED = "fused_gated_rms_norm"


def fused_rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor | None:
    """y = x / sqrt(mean(x^2) + eps) * weight over the last axis.

    PyTorch makes ten operations of it on a CPU, each of which passes over x.

    Args:
        x: (..., d), contiguous.
        weight: (d,), contiguous.
        eps: added to the mean square.

    Returns:
        y (..., d); or None where this kernel does not run and the caller goes another way: with
        gradients enabled, on other devices than the CPU, under a compiler, an autocast or anything
        else that watches operators, for other types than float32 or float64 throughout, for a
        strided x, or if SSM_KERNELS_BACKEND names another backend.

    Raises:
        ShapeError: the weight does not fit x.

    Cost: O(size of x) time, no memory besides y.
    Source: Zhang & Sennrich 2019, arXiv:1910.07467, Eq. 4.
    """
    if torch.is_grad_enabled() or not runs_unwatched(NAME, (x, weight)) or not x.is_contiguous():
        return None
    if weight.shape != x.shape[-1:]:
        raise wrong_shape(NAME, "weight", weight, f"the last axis of x, {tuple(x.shape[-1:])}")
    return native.rms_norm(x, weight, eps)


def fused_gated_rms_norm(
    x: Tensor, gate: Tensor, weight: Tensor, eps: float, groups: int = 1
) -> Tensor | None:
    """y = v / sqrt(mean(v^2) + eps) * weight with v = x silu(gate): the last norm inside Mamba-2.

    Args:
        x: (..., d), contiguous.
        gate: (..., d), any strides.
        weight: (d,), contiguous.
        eps: added to the mean square.
        groups: the mean is that of each of so many groups of neighbouring channels.

    Returns:
        y (..., d); or None where `fused_rms_norm` would return it.

    Raises:
        ShapeError: gate or weight do not fit x.
        ArgumentError: `groups` does not divide d.

    Cost: O(size of x) time, no memory besides y.
    Source: Dao & Gu 2024, arXiv:2405.21060, section 7.
    """
    if torch.is_grad_enabled() or not runs_unwatched(GATED, (x, gate, weight)):
        return None
    if not x.is_contiguous():
        return None
    if weight.shape != x.shape[-1:]:
        raise wrong_shape(GATED, "weight", weight, f"the last axis of x, {tuple(x.shape[-1:])}")
    if gate.shape != x.shape:
        raise wrong_shape(GATED, "gate", gate, f"that of x, {tuple(x.shape)}")
    if groups < 1 or x.shape[-1] % groups:
        raise ArgumentError(
            f"{GATED}: groups is {groups}, expected a divisor of the last axis, {x.shape[-1]}"
        )
    return native.rms_norm(x, weight, eps, gate, groups)
