"""The selective scan (S6), the operator of Mamba: checks, choice of a backend, packed sequences."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .backends import Backend, choose_backend
from .checks import (
    check_tensors,
    count_sequences,
    must_be_real,
    wrong_shape,
)
from .packed import Share, run_packed
from .reference import selective_scan_reference
from .selective_scan_autograd import NAME, ScanInputs, ScanOptions, scan_native

_MAY_BE_COMPLEX = frozenset({"A", "B", "C", "initial_state"})


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    *,
    initial_state: Tensor | None = None,
    return_final_state: bool = False,
    reverse: bool = False,
    cu_seqlens: Tensor | None = None,
    backend: Backend | str = Backend.AUTO,
) -> Tensor | tuple[Tensor, Tensor]:
    """Scan h[t] = exp(step[t] A) h[t-1] + step[t] B[t] u[t];  y[t] = C[t] h[t] + D u[t].

    `step` is `delta`, plus `delta_bias`, through a softplus if `delta_softplus`. With a gate,
    y[t] is multiplied by silu(z[t]), the skip D u included. With a complex A one state of each
    conjugate pair is stored and C h stands for 2 Re(C h).

    Args:
        u: (b, l, d) input: float32, float64, bfloat16 or float16, any strides.
        delta: (b, l, d) step size before bias and softplus.
        A: (d, n) diagonal of the state matrix, unit 1/step, real part negative for a stable
            system; real or complex.
        B: (b, l, n), or (b, l, g, n) with one row per group of d/g neighbouring channels, or (d, n)
            for the same matrix at every step; may be complex when A is.
        C: like B, independently of it.
        D: (d,) skip; None means 0.
        z: (b, l, d) gate; None means no gate.
        delta_bias: (d,) added to delta; None means 0.
        delta_softplus: pass the step size through a softplus.
        initial_state: (b, d, n) state before the first step; None means 0.
        return_final_state: also return the state after the last step.
        reverse: run from step l-1 down to 0; the final state is then the one after step 0.
        cu_seqlens: int32 or int64 offsets [0, ..., l] of sequences packed along the steps; b must
            be 1. Each sequence starts from its own state; states are then (sequences, d, n).
        backend: "auto", or an implementation that must run; see `Backend`.

    Returns:
        y (b, l, d) in the type of u, and with `return_final_state` the state (b, d, n).

        Sums and states are float32, or float64 if an activation (u, delta, z, B or C per step) is
        float64; complex64 or complex128 with a complex A. Activations of mixed types are promoted
        to the wider one for the computation.

    Raises:
        ShapeError, DTypeError, DeviceError, ArgumentError: an argument does not fit; the message
            names it.
        BackendError: a backend named explicitly cannot run; "auto" never raises this.

    Cost: O(b l d n) time. The native kernel keeps O(b d n) memory forward, and a state every few
    steps when a gradient is needed; its gradients cannot be differentiated again (the reference's
    can).
    Source: Gu & Dao 2023, arXiv:2312.00752, Eq. 2 and Algorithm 2.
    """
    inputs = ScanInputs(u, delta, A, B, C, D, z, delta_bias, initial_state)
    _check_types(inputs)
    n_states = u.shape[0] if cu_seqlens is None else count_sequences(NAME, cu_seqlens, u)
    _check_shapes(inputs, n_states)
    options = ScanOptions(bool(delta_softplus), bool(reverse))
    if choose_backend(NAME, backend, u.device) is Backend.REFERENCE:
        y, final_state = _scan_reference(inputs, cu_seqlens, options)
    else:
        y, final_state = scan_native(inputs, cu_seqlens, options)
    return (y, final_state) if return_final_state else y


def _check_types(inputs: ScanInputs) -> None:
    check_tensors(NAME, inputs, required=5, may_be_complex=_MAY_BE_COMPLEX)
    A = inputs.A
    if not A.is_complex():
        for name in ("B", "C", "initial_state"):
            tensor = getattr(inputs, name)
            if tensor is not None and tensor.is_complex():
                raise must_be_real(NAME, name, tensor, f" like A ({A.dtype})")


def _check_shapes(inputs: ScanInputs, n_states: int) -> None:
    u, delta, A, B, C, D, z, delta_bias, initial_state = inputs
    shape = u.shape
    if len(shape) != 3:
        raise wrong_shape(NAME, "u", u, "3 axes (b, l, d)")
    b, l, d = shape
    if delta.shape != shape:
        raise wrong_shape(NAME, "delta", delta, f"that of u, (b, l, d) = {tuple(shape)}")
    if z is not None and z.shape != shape:
        raise wrong_shape(NAME, "z", z, f"that of u, (b, l, d) = {tuple(shape)}")
    if A.dim() != 2 or A.shape[0] != d:
        raise wrong_shape(NAME, "A", A, f"(d, n) = ({d}, n)")
    n = A.shape[1]
    _check_projection("B", B, b, l, d, n)
    _check_projection("C", C, b, l, d, n)
    if D is not None and D.shape != (d,):
        raise wrong_shape(NAME, "D", D, f"(d,) = ({d},)")
    if delta_bias is not None and delta_bias.shape != (d,):
        raise wrong_shape(NAME, "delta_bias", delta_bias, f"(d,) = ({d},)")
    if initial_state is not None and initial_state.shape != (n_states, d, n):
        first = "b" if n_states == b else "number of sequences"
        expected = f"({first}, d, n) = ({n_states}, {d}, {n})"
        raise wrong_shape(NAME, "initial_state", initial_state, expected)


def _check_projection(name: str, M: Tensor, b: int, l: int, d: int, n: int) -> None:
    shape = M.shape
    if len(shape) == 2:
        fits = shape == (d, n)
    elif len(shape) == 3:
        fits = shape == (b, l, n)
    elif len(shape) == 4:
        g = shape[2]
        fits = shape == (b, l, g, n) and g > 0 and d % g == 0
    else:
        fits = False
    if not fits:
        expected = (
            f"(b, l, n) = ({b}, {l}, {n}), (b, l, g, n) = ({b}, {l}, g, {n}) with g dividing "
            f"d = {d}, or (d, n) = ({d}, {n})"
        )
        raise wrong_shape(NAME, name, M, expected)


def _scan_reference(
    inputs: ScanInputs, cu_seqlens: Tensor | None, options: ScanOptions
) -> tuple[Tensor, Tensor]:
    def scan(*tensors: Any) -> tuple[Tensor, Tensor]:
        u, delta, A, B, C, D, z, delta_bias, initial_state = tensors
        result = selective_scan_reference(
            *(u, delta, A, B, C, D, z, delta_bias),
            options.delta_softplus,
            initial_state=initial_state,
            return_final_state=True,
            reverse=options.reverse,
        )
        assert isinstance(result, tuple)
        return result

    if cu_seqlens is None:
        return scan(*inputs)
    steps, whole = Share.STEPS, Share.ALL
    B, C = (steps if M.dim() > 2 else whole for M in (inputs.B, inputs.C))
    shares = (steps, steps, whole, B, C, whole, steps, whole, Share.STATE)
    return run_packed(NAME, scan, cu_seqlens, inputs, shares)
