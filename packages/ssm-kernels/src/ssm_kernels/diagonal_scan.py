"""The diagonal scan, the recurrence of S5, LRU and HGRN: checks and choice of a backend."""

from __future__ import annotations

import torch
from torch import Tensor

from .backends import Backend, choose_backend
from .checks import check_tensors, sequence_lengths, wrong_shape
from .diagonal_scan_autograd import (
    NAME,
    ScanInputs,
    ScanOptions,
    result_dtype,
    scan_native,
    state_dtype,
)
from .reference import diagonal_scan_reference

_MAY_BE_COMPLEX = frozenset(ScanInputs._fields)


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
        argument is complex. Arguments of mixed types are converted first, which for real and
        complex ones of full size takes memory.

    Raises:
        ShapeError, DTypeError, DeviceError, ArgumentError: an argument does not fit; the message
            names it.
        BackendError: a backend named explicitly cannot run; "auto" never raises this.

    Cost: O(b l d) time, no memory besides the result, which is all that the backward pass keeps
    besides `a`. The native kernel's gradients are PyTorch's (those of complex numbers conjugate)
    and cannot be differentiated again (the reference's can).
    Source: Smith et al. 2023, arXiv:2208.04933, Eq. 2 and Appendix H (S5, parallel scan);
    Martin & Cundy 2018, arXiv:1709.04057 (gradients).
    """
    inputs = ScanInputs(a, u, initial_state)
    check_tensors(NAME, inputs, required=2, may_be_complex=_MAY_BE_COMPLEX)
    lengths = None if cu_seqlens is None else sequence_lengths(NAME, cu_seqlens, u)
    _check_shapes(inputs, n_states=u.shape[0] if lengths is None else len(lengths))
    chosen = choose_backend(NAME, backend, u.device)
    options = ScanOptions(bool(reverse))
    if chosen is Backend.REFERENCE:
        h, final_state = _reference(inputs, lengths, options)
    else:
        offsets = None if cu_seqlens is None else cu_seqlens.to("cpu", torch.int64)
        h, final_state = scan_native(inputs, offsets, options)
    return (h, final_state) if return_final_state else h


def _check_shapes(inputs: ScanInputs, n_states: int) -> None:
    a, u, initial_state = inputs
    if u.dim() != 3:
        raise wrong_shape(NAME, "u", u, "3 axes (b, l, d)")
    b, _, d = shape = u.shape
    if a.shape != shape and a.shape != (d,):
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
    inputs: ScanInputs, lengths: list[int] | None, options: ScanOptions
) -> tuple[Tensor, Tensor]:
    """Run the reference, packed sequences one after another."""
    a, u, initial_state = inputs
    if lengths is None:
        lengths, pieces_of_a, pieces_of_u, states = [], [a], [u], [initial_state]
    elif not lengths:
        empty = u.new_empty(0, u.shape[2], dtype=state_dtype(inputs))
        return u.to(result_dtype(inputs)), empty
    else:
        constant = a.dim() == 1 or a.shape[1] != u.shape[1]
        pieces_of_a = [a] * len(lengths) if constant else list(a.split(lengths, dim=1))
        pieces_of_u = list(u.split(lengths, dim=1))
        states = [None] * len(lengths) if initial_state is None else list(initial_state.split(1))
    results = []
    for piece_of_a, piece_of_u, state in zip(pieces_of_a, pieces_of_u, states, strict=True):
        result = diagonal_scan_reference(
            piece_of_a,
            piece_of_u,
            initial_state=state,
            return_final_state=True,
            reverse=options.reverse,
        )
        assert isinstance(result, tuple)
        results.append(result)
    h, final_state = zip(*results, strict=True)
    return torch.cat(h, dim=1), torch.cat(final_state)
