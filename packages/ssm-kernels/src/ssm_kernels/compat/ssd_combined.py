"""mamba_ssm.ops.triton.ssd_combined: the scan of Mamba-2."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..ssd_scan import ssd_scan
from .packing import Packing, end_to_end, packing_of, spread_states


class SsdTensors(NamedTuple):
    """The first arguments of `ssm_kernels.ssd_scan`."""

    x: Tensor
    dt: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    dt_bias: Tensor | None


class SsdOptions(NamedTuple):
    dt_softplus: bool
    dt_limit: tuple[float, float]


def mamba_chunk_scan_combined(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    chunk_size: int,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    initial_states: Tensor | None = None,
    seq_idx: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, math.inf),
    return_final_states: bool = False,
    return_varlen_states: bool = False,
) -> Tensor | tuple[Tensor, ...]:
    """Scan S[t] = exp(step A) S[t-1] + step x[t] B[t]^T;  y[t] = S[t] C[t] + D x[t], times silu(z).

    `step` is `dt`, plus `dt_bias`, through a softplus if `dt_softplus`, confined to `dt_limit`.

    Args:
        x: (b, l, h, p).
        dt: (b, l, h).
        A: (h,), negative.
        B: (b, l, g, n).
        C: like B.
        chunk_size: accepted; the kernels choose their own, which changes rounding alone.
        D: (h,) or (h, p); None means 0.
        z: (b, l, h, p) gate; None means no gate.
        dt_bias: (h,); None means 0.
        initial_states: (b, h, p, n); None means 0. With seq_idx they belong to the first sequence
            of a row, if its id is 0, as in the original.
        seq_idx: (b, l) id of the sequence each step belongs to; the state starts anew where it
            changes. None: one sequence per row.
        cu_seqlens: (sequences + 1,) offsets of the sequences in a batch of 1, for
            return_varlen_states; otherwise not read, as in the original.
        dt_softplus: pass the step size through a softplus.
        dt_limit: least and largest step size.
        return_final_states: also return the states after the last step of each row, (b, h, p, n).
        return_varlen_states: also return those after each sequence of cu_seqlens. Unlike in the
            original the sequences are then kept apart with seq_idx=None too, and gradients flow.

    Returns:
        y (b, l, h, p) in the type of x, or a tuple with the states asked for, float32.

    Raises:
        NotImplementedError: return_varlen_states without cu_seqlens or with a batch above 1.
        ShapeError, DTypeError, DeviceError, ArgumentError: from `ssm_kernels.ssd_scan`.

    Cost: that of `ssm_kernels.ssd_scan`; seq_idx on a GPU is waited for.
    Source: Dao & Gu 2024, arXiv:2405.21060, Section 6.
    """
    tensors = SsdTensors(x, dt, A, B, C, D, z, dt_bias)
    options = SsdOptions(bool(dt_softplus), dt_limit)
    if return_varlen_states:
        packing = _checked_packing(cu_seqlens, x)
        y, states = _scan_packed(tensors, initial_states, packing, options)
        final_states = (states[-1:],) if return_final_states else ()
        return (y, *final_states, states)
    if seq_idx is None or seq_idx.numel() == 0:
        y, states = _scan(tensors, initial_states, None, options)
        return (y, states) if return_final_states else y
    if initial_states is not None:
        goes_on = (seq_idx[:, 0] == 0).view(-1, 1, 1, 1)
        initial_states = torch.where(goes_on, initial_states, 0.0)
    packing = packing_of(seq_idx)
    y, states = _scan_packed(tensors, initial_states, packing, options)
    return (y, states[packing.last]) if return_final_states else y


def mamba_chunk_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    chunk_size: int,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
) -> Tensor:
    """Compute `mamba_chunk_scan_combined` without states; arguments as there."""
    options = SsdOptions(bool(dt_softplus), (0.0, math.inf))
    return _scan(SsdTensors(x, dt, A, B, C, D, z, dt_bias), None, None, options)[0]


def ssd_chunk_scan_combined_ref(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    chunk_size: int,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
) -> Tensor:
    """Compute `mamba_chunk_scan` with the operator's reference, a loop over the steps."""
    tensors = SsdTensors(x, dt, A, B, C, D, z, dt_bias)
    y = ssd_scan(*tensors, bool(dt_softplus), backend="reference")
    assert isinstance(y, Tensor)
    return y


def _checked_packing(cu_seqlens: Tensor | None, x: Tensor) -> Packing:
    if cu_seqlens is None or x.shape[0] != 1:
        raise NotImplementedError(
            "mamba_chunk_scan_combined: return_varlen_states needs cu_seqlens and a batch of 1; "
            f"got cu_seqlens={'None' if cu_seqlens is None else 'a tensor'} and a batch of "
            f"{x.shape[0]}: lay the sequences end to end"
        )
    row = torch.zeros(1, dtype=torch.int64, device=x.device)
    return Packing(cu_seqlens, row, row + cu_seqlens.shape[0] - 2)


def _scan_packed(
    tensors: SsdTensors, initial_states: Tensor | None, packing: Packing, options: SsdOptions
) -> tuple[Tensor, Tensor]:
    """Return y (b, l, h, p) and the state after every sequence."""
    x, dt, A, B, C, D, z, dt_bias = tensors
    packed = SsdTensors(
        *(end_to_end(x), end_to_end(dt), A, end_to_end(B), end_to_end(C), D),
        None if z is None else end_to_end(z),
        dt_bias,
    )
    initial = spread_states(initial_states, packing)
    y, states = _scan(packed, initial, packing.cu_seqlens, options)
    return y.view(x.shape), states


def _scan(
    tensors: SsdTensors,
    initial_states: Tensor | None,
    cu_seqlens: Tensor | None,
    options: SsdOptions,
) -> tuple[Tensor, Tensor]:
    y, states = ssd_scan(
        *tensors,
        options.dt_softplus,
        dt_limit=options.dt_limit,
        initial_state=initial_states,
        return_final_state=True,
        cu_seqlens=cu_seqlens,
    )
    return y, states
