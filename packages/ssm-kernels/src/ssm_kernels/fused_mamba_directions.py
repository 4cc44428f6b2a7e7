"""The inner part of a Mamba mixer in several directions: one kernel where no gradient is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from . import native
from .checks import wrong_shape
from .errors import ArgumentError
from .library import runs_unwatched

NAME = "fused_mamba_directions"
MAX_WIDTH = 8
MAX_DIRECTIONS = 4


class MambaParameters(NamedTuple):
    """The parameters of one direction, in the shapes of Mamba's checkpoints."""

    conv_weight: Tensor
    """(d, 1, k), k from 1 to 8: taps of the convolution, the last one for the present step."""
    conv_bias: Tensor | None
    """(d,)"""
    x_proj: Tensor
    """(R + 2 n, d): rows of the step size, of B, of C."""
    dt_proj: Tensor
    """(d, R)"""
    dt_bias: Tensor | None
    """(d,)"""
    A_log: Tensor
    """(d, n): A = -exp(A_log), unit of A: 1/step."""
    D: Tensor | None
    """(d,)"""


def fused_mamba_directions(
    x: Tensor,
    z: Tensor,
    parameters: Sequence[MambaParameters],
    reverse: Sequence[bool],
    factor: float = 1.0,
) -> Tensor | None:
    """Convolve, project and scan x in each direction; return the sum times factor silu(z).

    A direction is u = silu(causal_conv1d(x)), (dt, B, C) = x_proj u, and the selective scan of u
    with the steps softplus(dt_proj dt + dt_bias), A, B, C and the skip D.

    Args:
        x: (b, l, d), any strides.
        z: (b, l, d) gate, any strides.
        parameters: of one to four directions, contiguous; the sizes k, R and n are those of all.
        reverse: which directions run from the last step to the first.
        factor: of the whole result; 0.5 gives the mean of two directions.

    Returns:
        y (b, l, d); or None where this kernel does not run and the caller goes another way: with
        gradients enabled, on other devices than the CPU, under a compiler, an autocast or anything
        else that watches operators, for other types than float32 or float64 throughout, or if
        SSM_KERNELS_BACKEND names another backend.

    Raises:
        ShapeError, ArgumentError: an argument does not fit; the message names it.

    Cost: O(b l d (R + n + k)) time per direction; keeps O(l d) numbers per direction of a sequence,
    for as many sequences at once as fit into 8 MiB, or as the threads share evenly.
    Source: Gu & Dao 2023, arXiv:2312.00752, Algorithm 2; Zhu et al. 2024, arXiv:2401.09417,
    Algorithm 1 (two directions).
    """
    if torch.is_grad_enabled():
        return None
    tensors: list[Tensor | None] = [x, z]
    for own in parameters:
        tensors += own
    if not runs_unwatched(NAME, tensors):
        return None
    _check(x, z, parameters, reverse)
    return native.mamba_directions(x, z, parameters, reverse, factor)


def _check(
    x: Tensor, z: Tensor, parameters: Sequence[MambaParameters], reverse: Sequence[bool]
) -> None:
    shape = x.shape
    if len(shape) != 3:
        raise wrong_shape(NAME, "x", x, "3 axes (b, l, d)")
    if z.shape != shape:
        raise wrong_shape(NAME, "z", z, f"that of x, (b, l, d) = {tuple(shape)}")
    if not 1 <= len(parameters) == len(reverse) <= MAX_DIRECTIONS:
        raise ArgumentError(
            f"{NAME}: parameters of {len(parameters)} directions and {len(reverse)} entries of "
            f"reverse, expected as many, 1 to {MAX_DIRECTIONS}"
        )
    d, first = shape[2], parameters[0]
    k, rank, n = first.conv_weight.shape[-1], first.dt_proj.shape[-1], first.A_log.shape[-1]
    if not 1 <= k <= MAX_WIDTH:
        raise wrong_shape(NAME, "conv_weight", first.conv_weight, "(d, 1, k) with k from 1 to 8")
    row = (d,)
    expected = ((d, 1, k), row, (rank + 2 * n, d), (d, rank), row, (d, n), row)
    for own in parameters:
        for i, tensor in enumerate(own):
            if tensor is not None and tensor.shape != expected[i]:
                raise wrong_shape(NAME, own._fields[i], tensor, str(expected[i]))
