"""Compiled parts of a layer for inference on the CPU: checked tensors in, a tensor out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import native_extension as extension
from .native_extension import DTYPE_CODES, contiguous, resolved, view

#: (conv_weight, conv_bias, x_proj, dt_proj, dt_bias, A_log, D), see `MambaParameters`
DirectionTensors = tuple[
    Tensor, "Tensor | None", Tensor, Tensor, "Tensor | None", Tensor, "Tensor | None"
]


def has_fused_kernels() -> bool:
    """Whether CPU tensors go to the kernels of the CPU, which include those here."""
    return extension._native is not None and extension._on_host is extension._native


def mamba_directions(
    x: Tensor,
    z: Tensor,
    parameters: Sequence[DirectionTensors],
    reverse: Sequence[bool],
    factor: float,
) -> Tensor:
    """The sum of all directions times factor silu(z), (b, l, d) and contiguous.

    All tensors have the type of x, float32 or float64; see the public function.
    """
    x, z = resolved(x), resolved(z)
    # The C++ side holds addresses only, so the copies must outlive the call. Asking here costs less
    # than a call per tensor.
    kept = [
        [p if p is None or (p.is_contiguous() and not p.is_neg()) else contiguous(p) for p in own]
        for own in parameters
    ]
    first = parameters[0]
    (b, l, d), (_, n) = x.shape, first[5].shape
    sizes = (b, l, d, n, first[0].shape[2], first[3].shape[1], DTYPE_CODES[x.dtype])
    y = x.new_empty((b, l, d))
    extension._native.mamba_directions(
        sizes,
        (view(x), view(z), view(y)),
        [
            (*[0 if p is None else p.data_ptr() for p in own], way)
            for own, way in zip(kept, reverse, strict=True)
        ],
        factor,
        torch.get_num_threads(),
    )
    return y


def rms_norm(
    x: Tensor, weight: Tensor, eps: float, gate: Tensor | None = None, groups: int = 1
) -> Tensor:
    """The norm of x (..., d), contiguous and of the type of weight (d,), float32 or float64.

    With a gate (..., d), any strides, that of x silu(gate), in each of `groups` groups of channels.
    """
    x, weight = resolved(x), contiguous(weight)
    y = torch.empty_like(x)
    d = weight.shape[0]
    stride = 0
    if gate is not None:
        gate, stride = _rows(resolved(gate))
    extension._native.rms_norm(
        (x.numel() // max(d, 1), groups, d // groups, stride, DTYPE_CODES[x.dtype]),
        (x.data_ptr(), weight.data_ptr(), y.data_ptr(), 0 if gate is None else gate.data_ptr()),
        eps,
        torch.get_num_threads(),
    )
    return y


def _rows(x: Tensor) -> tuple[Tensor, int]:
    """A tensor (..., d) or a copy, whose rows are contiguous, and the distance between them."""
    try:
        rows = x.view(-1, x.shape[-1]) if x.numel() else x.reshape(0, x.shape[-1])
    except RuntimeError:  # rows at changing distances
        rows = x.reshape(-1, x.shape[-1])
    if rows.stride(1) != 1:
        rows = rows.contiguous()
    return rows, rows.stride(0)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x weight^T + bias, (..., m) and contiguous, for x (..., k) of the type of weight (m, k)."""
    x, weight = contiguous(x), resolved(weight)
    bias = None if bias is None else resolved(bias)
    m, k = weight.shape
    y = x.new_empty((*x.shape[:-1], m))
    extension._native.linear(
        (y.numel() // max(m, 1), k, m, DTYPE_CODES[x.dtype]),
        (x.data_ptr(), weight.data_ptr(), 0 if bias is None else bias.data_ptr(), y.data_ptr()),
        torch.get_num_threads(),
    )
    return y
