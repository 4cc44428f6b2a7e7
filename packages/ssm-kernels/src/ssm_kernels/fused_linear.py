"""A linear layer in inference on a CPU, where that is quicker than torch's own."""

from __future__ import annotations

import torch
from torch import Tensor

from . import native
from .checks import wrong_shape
from .library import runs_unwatched

NAME = "fused_linear"
MAX_ROWS = 16
#: numbers in a matrix from which the calls to a kernel of its own are paid for
LEAST_WEIGHTS = 2**15
#: multiplications from which packing the weights of many rows is paid for
LEAST_PRODUCTS = 2**22
#: longer rows of the weights are packed into more than the second-level cache
MAX_INNER = 2048
#: whose registers hold blocks as large as those of the BLAS libraries
_FOR_MANY_ROWS = frozenset({"avx2", "avx512"})


def fused_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
    """y = x weight^T + bias, read once and on all threads.

    `torch.nn.functional.linear` leaves it to MKL, which on an AMD EPYC took one thread for a single
    row, and for many rows 0.95 to 1.25 times as long as this. Up to 16 rows, a step of generation,
    read the weights once; for more rows, on x86-64, they are packed panel by panel.

    Args:
        x: (..., k), any strides.
        weight: (m, k), contiguous.
        bias: (m,), contiguous, or None.

    Returns:
        y (..., m), contiguous; or None where nothing is gained and the caller goes another way:
        with gradients enabled, for small matrices, for many rows of more than 2048 numbers, on
        other devices than the CPU, under a compiler, an autocast or anything else that watches
        operators, for other types than float32 or float64 throughout, for a strided weight, or if
        SSM_KERNELS_BACKEND names another backend.

    Raises:
        ShapeError: weight or bias do not fit x.

    Cost: O(rows m k) time; for a few rows that of reading the weights.
    """
    if torch.is_grad_enabled() or weight.numel() < LEAST_WEIGHTS or x.ndim == 0:
        return None
    k, m = x.shape[-1], weight.shape[0]
    few = x.numel() <= MAX_ROWS * k
    if not few and (x.numel() * m < LEAST_PRODUCTS or k > MAX_INNER):
        return None
    if not runs_unwatched(NAME, (x, weight) if bias is None else (x, weight, bias)):
        return None
    if not weight.is_contiguous() or (bias is not None and not bias.is_contiguous()):
        return None
    if weight.ndim != 2 or weight.shape[1] != k:
        raise wrong_shape(NAME, "weight", weight, f"(m, k) with the last axis of x, k = {k}")
    if bias is not None and bias.shape != (m,):
        raise wrong_shape(NAME, "bias", bias, f"(m,) = ({m},)")
    if not few and native.isa() not in _FOR_MANY_ROWS:
        return None
    return native.linear(x, weight, bias)
