"""The state space dual (SSD) scan, the operator of Mamba-2: checks and choice of a backend."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from .backends import Backend, choose_backend
from .checks import check_tensors, count_sequences, wrong_shape
from .errors import ArgumentError
from .packed import Share, run_packed
from .reference import ssd_scan_reference
from .ssd_scan_autograd import NAME, SsdInputs, SsdOptions, ssd_scan_native


def ssd_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    *,
    dt_limit: tuple[float, float] = (0.0, math.inf),
    initial_state: Tensor | None = None,
    return_final_state: bool = False,
    reverse: bool = False,
    cu_seqlens: Tensor | None = None,
    chunk_size: int | None = None,
    backend: Backend | str = Backend.AUTO,
) -> Tensor | tuple[Tensor, Tensor]:
    """Scan S[t] = exp(step[t] A) S[t-1] + step[t] x[t] B[t]^T;  y[t] = S[t] C[t] + D x[t].

    One state S (p, n) per head, whose decay is one number per step: the selective scan with A
    constant over p and n. That lets a chunk of steps be computed with products of matrices.
    `step` is `dt`, plus `dt_bias`, through a softplus if `dt_softplus`, then confined to
    `dt_limit`. With a gate, y[t] is multiplied by silu(z[t]), the skip D x included.

    Args:
        x: (b, l, h, p) input: float32, float64, bfloat16 or float16, any strides.
        dt: (b, l, h) step size before bias and softplus.
        A: (h,) decay of each head, unit 1/step, negative for a stable system.
        B: (b, l, g, n), one row per group of h/g neighbouring heads.
        C: like B.
        D: (h,) or (h, p) skip; None means 0.
        z: (b, l, h, p) gate; None means no gate.
        dt_bias: (h,) added to dt; None means 0.
        dt_softplus: pass the step size through a softplus.
        dt_limit: least and largest step size; the gradient is 0 where the step size was outside.
        initial_state: (b, h, p, n) state before the first step; None means 0.
        return_final_state: also return the state after the last step.
        reverse: run from step l-1 down to 0; the final state is then the one after step 0.
        cu_seqlens: int32 or int64 offsets [0, ..., l] of sequences packed along the steps; b must
            be 1. Each sequence starts from its own state; states are then (sequences, h, p, n).
        chunk_size: steps per chunk on the CPU, 1 or more, for products of matrices in the BLAS of
            PyTorch; None goes step by step where that is quicker. Changes nothing but time and
            rounding. The CUDA kernels have a length of their own.
        backend: "auto", or an implementation that must run; see `Backend`.

    Returns:
        y (b, l, h, p) in the type of x, and with `return_final_state` the state (b, h, p, n).

        Sums and states are float32, or float64 if an activation (x, dt, z, B or C) is float64.
        Activations of mixed types are promoted to the wider one for the computation.

    Raises:
        ShapeError, DTypeError, DeviceError, ArgumentError: an argument does not fit; the message
            names it.
        BackendError: a backend named explicitly cannot run; "auto" never raises this.

    Cost, beside copies of the inputs in the type of the sums: step by step O(b l h p n) time, and
    memory for b h p n l/32 numbers in the backward pass; in chunks of q steps
    O(b l h (q (p + n) + p n)) time and memory for b h p n l/q numbers. The backward pass keeps the
    inputs alone and computes the rest again; its gradients cannot be differentiated again (the
    reference's can).
    Numbers that are not finite stay in their sequence; in chunks, and on a GPU, they may reach
    other steps of their chunk.
    Source: Dao & Gu 2024, arXiv:2405.21060, Section 6 and Listing 1.
    """
    inputs = SsdInputs(x, dt, A, B, C, D, z, dt_bias, initial_state)
    check_tensors(NAME, inputs, required=5)
    if x.dim() != 4:
        raise wrong_shape(NAME, "x", x, "4 axes (b, l, h, p)")
    n_states = x.shape[0] if cu_seqlens is None else count_sequences(NAME, cu_seqlens, x)
    _check_shapes(inputs, n_states)
    options = _options(dt_softplus, dt_limit, reverse, chunk_size)
    if choose_backend(NAME, backend, x.device) is Backend.REFERENCE:
        y, final_state = _reference(inputs, cu_seqlens, options)
    else:
        y, final_state = ssd_scan_native(inputs, cu_seqlens, options)
    return (y, final_state) if return_final_state else y


def _options(
    dt_softplus: bool, dt_limit: tuple[float, float], reverse: bool, chunk_size: int | None
) -> SsdOptions:
    least, largest = dt_limit
    if not least <= largest:
        raise ArgumentError(f"{NAME}: dt_limit is {dt_limit}, expected (least, largest)")
    if chunk_size is not None and chunk_size < 1:
        raise ArgumentError(f"{NAME}: chunk_size is {chunk_size}, expected 1 or more, or None")
    return SsdOptions(
        bool(dt_softplus), float(least), float(largest), bool(reverse), chunk_size or 0
    )


def _check_shapes(inputs: SsdInputs, n_states: int) -> None:
    x, dt, A, B, C, D, z, dt_bias, initial_state = inputs
    b, l, h, p = shape = x.shape
    if dt.shape != (b, l, h):
        raise wrong_shape(NAME, "dt", dt, f"(b, l, h) = ({b}, {l}, {h})")
    if z is not None and z.shape != shape:
        raise wrong_shape(NAME, "z", z, f"that of x, (b, l, h, p) = {tuple(shape)}")
    if A.shape != (h,):
        raise wrong_shape(NAME, "A", A, f"(h,) = ({h},)")
    if B.dim() != 4 or B.shape[:2] != (b, l) or B.shape[2] == 0 or h % B.shape[2] != 0:
        expected = f"(b, l, g, n) = ({b}, {l}, g, n) with g dividing h = {h}"
        raise wrong_shape(NAME, "B", B, expected)
    if C.shape != B.shape:
        raise wrong_shape(NAME, "C", C, f"that of B, (b, l, g, n) = {tuple(B.shape)}")
    if D is not None and D.shape != (h,) and D.shape != (h, p):
        raise wrong_shape(NAME, "D", D, f"(h,) = ({h},) or (h, p) = ({h}, {p})")
    if dt_bias is not None and dt_bias.shape != (h,):
        raise wrong_shape(NAME, "dt_bias", dt_bias, f"(h,) = ({h},)")
    n = B.shape[3]
    if initial_state is not None and initial_state.shape != (n_states, h, p, n):
        first = "b" if n_states == b else "number of sequences"
        expected = f"({first}, h, p, n) = ({n_states}, {h}, {p}, {n})"
        raise wrong_shape(NAME, "initial_state", initial_state, expected)


def _reference(
    inputs: SsdInputs, cu_seqlens: Tensor | None, options: SsdOptions
) -> tuple[Tensor, Tensor]:
    def scan(*tensors: Any) -> tuple[Tensor, Tensor]:
        x, dt, A, B, C, D, z, dt_bias, initial_state = tensors
        result = ssd_scan_reference(
            *(x, dt, A, B, C, D, z, dt_bias),
            options.dt_softplus,
            dt_limit=(options.dt_min, options.dt_max),
            initial_state=initial_state,
            return_final_state=True,
            reverse=options.reverse,
        )
        assert isinstance(result, tuple)
        return result

    if cu_seqlens is None:
        return scan(*inputs)
    steps, whole = Share.STEPS, Share.ALL
    shares = (steps, steps, whole, steps, steps, whole, steps, whole, Share.STATE)
    return run_packed(NAME, scan, cu_seqlens, inputs, shares)
