"""The diagonal scan, the recurrence of S5, LRU and HGRN: checks and choice of a backend."""

from __future__ import annotations

from torch import Tensor

from .backends import Backend, choose_backend
from .checks import check_tensors, count_sequences, wrong_shape
from .diagonal_scan_autograd import NAME, DiagonalScanInputs, diagonal_scan_native
from .packed import Share, run_packed
from .reference import diagonal_scan_reference

_MAY_BE_COMPLEX = frozenset(DiagonalScanInputs._fields)


def diagonal_scan(
    a: Tensor,
    u: Tensor,
    *,
    initial_state: Tensor | None = None,
    return_final_state: bool = False,
    reverse: bool = False,
    cu_seqlens: Tensor | None = None,
    backend: Backend | str = Backend.AUTO,
) -> Tensor | tuple[Tensor, Tensor]:
    """Scan h[t] = a[t] h[t-1] + u[t], every channel by itself, real or complex.

    Args:
        a: (b, l, d) factors, any of its axes 1 where one value serves for all; or (d,), constant
            in time and over the batch. Never expanded in memory.
        u: (b, l, d) input: float32, float64, bfloat16, float16, complex64 or complex128, any
            strides.
        initial_state: (b, d) state before the first step; None means 0.
        return_final_state: also return the state after the last step.
        reverse: run from step l-1 down to 0; the final state is then the one after step 0.
        cu_seqlens: int32 or int64 offsets [0, ..., l] of sequences packed along the steps; b must
            be 1. Each sequence starts from its own state; states are then (sequences, d).
        backend: "auto", or an implementation that must run; see `Backend`.

    Returns:
        h (b, l, d) in the type of u, made complex if `a` or the state is, and with
        `return_final_state` the state (b, d).

        Sums and states are float32, or float64 if `a` or `u` is; complex64 or complex128 if any
        argument is complex. 16-bit arguments are read as they are; in other mixtures (real with
        complex, float32 with float64) the narrower tensors are converted in memory first.

    Raises:
        ShapeError, DTypeError, DeviceError, ArgumentError: an argument does not fit; the message
            names it.
        BackendError: a backend named explicitly cannot run; "auto" never raises this.

    Cost: O(b l d) time, no memory besides the result, which with `a` is all that the backward
    pass needs. Gradients of complex numbers are PyTorch's (conjugate). Those of the native kernel
    cannot be differentiated again (the reference's can).
    Source: Smith et al. 2023, arXiv:2208.04933, Eq. 2 and Appendix H (S5, parallel scan);
    Martin & Cundy 2018, arXiv:1709.04057 (gradients).
    """
    inputs = DiagonalScanInputs(a, u, initial_state)
    check_tensors(NAME, inputs, required=2, may_be_complex=_MAY_BE_COMPLEX)
    n_states = u.shape[0] if cu_seqlens is None else count_sequences(NAME, cu_seqlens, u)
    _check_shapes(inputs, n_states)
    if choose_backend(NAME, backend, u.device) is Backend.REFERENCE:
        h, final_state = _reference(inputs, cu_seqlens, bool(reverse))
    else:
        h, final_state = diagonal_scan_native(inputs, cu_seqlens, bool(reverse))
    return (h, final_state) if return_final_state else h


def _check_shapes(inputs: DiagonalScanInputs, n_states: int) -> None:
    a, u, initial_state = inputs
    if u.dim() != 3:
        raise wrong_shape(NAME, "u", u, "3 axes (b, l, d)")
    b, _, d = shape = u.shape
    # the number of axes first: a tracer would compare d with b, and tie the graph to a batch
    if a.dim() == 1:
        fits = a.shape[0] == d
    else:
        fits = a.dim() == 3 and all(
            own in (1, full) for own, full in zip(a.shape, shape, strict=True)
        )
    if not fits:
        expected = f"(b, l, d) = {tuple(shape)} like u, 1 for any of these axes, or (d,)"
        raise wrong_shape(NAME, "a", a, expected)
    if initial_state is not None and initial_state.shape != (n_states, d):
        first = "b" if n_states == b else "number of sequences"
        raise wrong_shape(NAME, "initial_state", initial_state, f"({first}, d) = ({n_states}, {d})")


def _reference(
    inputs: DiagonalScanInputs, cu_seqlens: Tensor | None, reverse: bool
) -> tuple[Tensor, Tensor]:
    def scan(u: Tensor, a: Tensor, initial_state: Tensor | None) -> tuple[Tensor, Tensor]:
        result = diagonal_scan_reference(
            a, u, initial_state=initial_state, return_final_state=True, reverse=reverse
        )
        assert isinstance(result, tuple)
        return result

    a, u, initial_state = inputs
    if cu_seqlens is None:
        return scan(u, a, initial_state)
    constant = a.dim() == 1 or a.shape[1] != u.shape[1]
    shares = (Share.STEPS, Share.ALL if constant else Share.STEPS, Share.STATE)
    return run_packed(NAME, scan, cu_seqlens, (u, a, initial_state), shares)
