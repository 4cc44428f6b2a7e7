"""How many additions and multiplications the operators of ssm-kernels and Fourier transforms take.

An exponential counts as one operation, a complex multiplication and addition as 8. The scans are
counted as their recurrences are written, whichever algorithm computes them, so that a count depends
on the model and not on the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import ssm_kernels

#: exp(step A), step u B (one product), decay times state, their sum, C times state and its sum
PER_STATE = 7
COMPLEX = 4


def operator_formulas() -> dict[Any, Callable[..., int]]:
    """Operator -> formula, for `FlopCounterMode(custom_mapping=...)`."""
    ops = getattr(torch.ops, ssm_kernels.library.NAMESPACE)
    aten = torch.ops.aten
    formulas: dict[Any, Callable[..., int]] = {
        ops.selective_scan_forward: _selective_scan,
        ops.selective_scan_directions_forward: _selective_scan_directions,
        ops.ssd_scan_forward: _ssd_scan,
        ops.diagonal_scan_forward: _diagonal_scan,
        ops.causal_conv1d_forward: _causal_conv1d,
        ops.log_vandermonde_forward: _log_vandermonde,
        ops.cauchy_forward: _cauchy,
        aten._fft_r2c: _real_fft,
        aten._fft_c2r: _inverse_real_fft,
        aten._fft_c2c: _complex_fft,
    }
    for formula in formulas.values():
        formula._get_raw = True  # type: ignore[attr-defined]  # wants tensors, not shapes
    return formulas


def _selective_scan(u: Tensor, delta: Tensor, A: Tensor, *others: Any, **_: Any) -> int:
    """u (b, l, d), A (d, n): 7 n + 1 per step and channel, 2 for a skip, 2 for a gate.

    The 7 of a state h, from Gu & Dao 2023, arXiv:2312.00752, Eq. 2: step A, its exponential,
    B (step u), decay h, their sum, C h, its sum; and 1 for step u.
    """
    _, _, D, z = others[:4]
    return u.numel() * (_per_channel(A, D) + 2 * (z is not None))


def _selective_scan_directions(u: Tensor, delta: Tensor, A: Tensor, *others: Any, **_: Any) -> int:
    """delta (b, l, k, d), A (k, d, n): the selective scan for each of k directions, one gate."""
    _, _, D, z = others[:4]
    gate = 0 if z is None else 2 * z.numel()
    return delta.numel() * _per_channel(A, D) + gate


def _per_channel(A: Tensor, D: Tensor | None) -> int:
    states = A.shape[-1] * PER_STATE * (COMPLEX if A.is_complex() else 1)
    return states + 1 + 2 * (D is not None)


def _ssd_scan(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, *others: Any, **_: Any) -> int:
    """x (b, l, h, p), B (b, l, g, n): 5 n + 1 per step, head and channel, 2 for skip and for gate.

    Dao & Gu 2024, arXiv:2405.21060: (step x) B, decay h, their sum, C h, its sum.
    """
    _, D, z = others[:3]
    return x.numel() * (5 * B.shape[-1] + 1 + 2 * (D is not None) + 2 * (z is not None))


def _diagonal_scan(a: Tensor, u: Tensor, *_: Any, out_val: Any, **__: Any) -> int:
    """h = a h + u: a multiplication and an addition per element."""
    h: Tensor = out_val[0]
    return h.numel() * (2 * COMPLEX if h.is_complex() else 2)


def _causal_conv1d(x: Tensor, weight: Tensor, bias: Tensor | None, *_: Any, **__: Any) -> int:
    """x (b, l, d), weight (d, k)."""
    return x.numel() * (2 * weight.shape[-1] + (bias is not None))


def _log_vandermonde(v: Tensor, x: Tensor, l: int, *_: Any, **__: Any) -> int:
    """Two multiply-adds per element of v (..., h, n) and step, as the operator's page says."""
    return v.numel() * l * 4


def _cauchy(v: Tensor, z: Tensor, *_: Any, **__: Any) -> int:
    """18 operations and 2 reciprocals per element of v (..., h, n) and node z, as its page says."""
    return v.numel() * z.shape[-1] * 20


def _complex_fft(x: Tensor, dim: list[int], *_: Any, **__: Any) -> int:
    """5 N log2 N per transform: Frigo & Johnson 2005, doi:10.1109/JPROC.2004.840301."""
    return round(5 * x.numel() * _log_length(x, dim))


def _real_fft(x: Tensor, dim: list[int], *_: Any, **__: Any) -> int:
    return round(2.5 * x.numel() * _log_length(x, dim))


def _inverse_real_fft(x: Tensor, dim: list[int], *_: Any, out_val: Tensor, **__: Any) -> int:
    return _real_fft(out_val, dim)


def _log_length(x: Tensor, dim: list[int]) -> float:
    return math.log2(max(1, math.prod(x.shape[d] for d in dim)))
