"""mamba_ssm.ops.selective_scan_interface: the scan of Mamba in the original's layout, (b, d, l)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..backends import Backend
from ..errors import ShapeError
from ..selective_scan import selective_scan
from .errors import explain_axes


class ScanTensors(NamedTuple):
    """The tensors of one scan with the steps on the last axis, as the original has them."""

    u: Tensor
    """(b, d, l)"""
    delta: Tensor
    """(b, d, l)"""
    A: Tensor
    """(d, n), real or complex"""
    B: Tensor
    """(d, n), (b, n, l) or (b, g, n, l); with a complex A and steps (b, n, 2l) or (b, g, n, 2l):
    real and imaginary parts alternate."""
    C: Tensor
    """Like B."""
    D: Tensor | None = None
    """(d,)"""
    z: Tensor | None = None
    """(b, d, l)"""
    delta_bias: Tensor | None = None
    """(d,)"""


def selective_scan_fn(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Scan h[t] = exp(step A) h[t-1] + step B[t] u[t];  y[t] = C[t] h[t] + D u[t], times silu(z).

    `step` is `delta`, plus `delta_bias`, through a softplus if `delta_softplus`.

    Args:
        u: (b, d, l) input, any float type and strides.
        delta: (b, d, l) step size before bias and softplus.
        A: (d, n), real or complex.
        B: (d, n), (b, n, l) or (b, g, n, l) with g groups of channels; with a complex A and steps
            real, the last axis 2l long with real and imaginary parts in turn.
        C: like B, independently of it.
        D: (d,) skip; None means 0.
        z: (b, d, l) gate; None means no gate.
        delta_bias: (d,); None means 0.
        delta_softplus: pass the step size through a softplus.
        return_last_state: also return the state after the last step. Unlike in the original,
            gradients flow through it.

    Returns:
        y (b, d, l), contiguous, in the type of u; and with `return_last_state` the state (b, d, n),
        float32 or complex64 (float64 and complex128 if an activation is float64).

    Raises:
        ShapeError, DTypeError, DeviceError: from `ssm_kernels.selective_scan`; shapes in the
            message are (b, l, d).

    Cost: that of `ssm_kernels.selective_scan` and one copy of y.
    Source: Gu & Dao 2023, arXiv:2312.00752, Algorithm 2.
    """
    tensors = ScanTensors(u, delta, A, B, C, D, z, delta_bias)
    y, last_state = scan(tensors, delta_softplus, Backend.AUTO)
    return (y, last_state) if return_last_state else y


def selective_scan_ref(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Compute what `selective_scan_fn` does step by step in PyTorch, differentiable twice.

    Arguments, results and errors: see `selective_scan_fn`. Cost: O(b l d n) time and, if a gradient
    is wanted, memory.
    """
    tensors = ScanTensors(u, delta, A, B, C, D, z, delta_bias)
    y, last_state = scan(tensors, delta_softplus, Backend.REFERENCE)
    return (y, last_state) if return_last_state else y


class SelectiveScanFn:
    """Where code calls `SelectiveScanFn.apply(...)`: the same as `selective_scan_fn`.

    Not a `torch.autograd.Function`, as the operators below record gradients themselves.
    """

    apply = staticmethod(selective_scan_fn)


def scan(
    tensors: ScanTensors, delta_softplus: bool, backend: Backend, reverse: bool = False
) -> tuple[Tensor, Tensor]:
    """Return y (b, d, l), contiguous, and the final state (b, d, n)."""
    try:
        y, final_state = selective_scan(
            *_call_layout(tensors),
            bool(delta_softplus),
            return_final_state=True,
            reverse=reverse,
            backend=backend,
        )
    except ShapeError as error:
        explain_axes(error)
    # Callers take .view(b, k, d, l) of it.
    return y.transpose(1, 2).contiguous(), final_state


def _call_layout(tensors: ScanTensors) -> ScanTensors:
    u, delta, A, B, C, D, z, delta_bias = tensors
    return ScanTensors(
        u.transpose(1, 2),
        delta.transpose(1, 2),
        A,
        steps_second(B, A),
        steps_second(C, A),
        D,
        None if z is None else z.transpose(1, 2),
        delta_bias,
    )


def steps_second(M: Tensor, A: Tensor) -> Tensor:
    """(b, n, l) -> (b, l, n), (b, g, n, l) -> (b, l, g, n); (d, n) stays; pairs become complex."""
    if M.dim() == 2:
        return M
    if A.is_complex() and not M.is_complex():
        M = complex_pairs(M)
    return M.movedim(-1, 1)


def complex_pairs(M: Tensor) -> Tensor:
    """Join real and imaginary parts that alternate on the last axis."""
    wide = M if M.dtype is torch.float64 else M.float()
    return torch.complex(wide[..., 0::2], wide[..., 1::2])
