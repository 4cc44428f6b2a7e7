"""The native diagonal scan as a differentiable operator.

The two launch functions below are the only place that calls the kernel, whichever way a call takes
through PyTorch (see `library_autograd`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from . import native
from .checks import COMPLEX_OF, checked_offsets, compute_dtype, kernel_offsets
from .library import Arguments, Kernel, Results
from .library_autograd import Differentiable

NAME = "diagonal_scan"


class DiagonalScanInputs(NamedTuple):
    """The tensors of one call, in the order of the kernel's arguments."""

    a: Tensor
    u: Tensor
    initial_state: Tensor | None


def diagonal_scan_native(
    inputs: DiagonalScanInputs, cu_seqlens: Tensor | None, reverse: bool
) -> tuple[Tensor, Tensor]:
    """Return h and the final state; record the call for autograd if a gradient is wanted."""
    prepared = _to_kernel_types(inputs)
    h, final_state = _scan(*prepared, cu_seqlens, reverse)
    u = inputs.u
    if h.dtype is not u.dtype:
        h = _cast(h, COMPLEX_OF[compute_dtype(u)] if h.is_complex() else u.dtype)
    return h, final_state


def _to_kernel_types(inputs: DiagonalScanInputs) -> DiagonalScanInputs:
    """Give the state the compute type, a three axes, a and u that type or 16-bit u's.

    The conversions are ordinary differentiable operations, so gradients return in the type and
    shape of each argument. A complex operand makes the others complex.
    """
    a, u, initial_state = inputs
    state = compute_dtype(a, u)
    has_complex_state = initial_state is not None and initial_state.is_complex()
    if a.is_complex() or u.is_complex() or has_complex_state:
        state = COMPLEX_OF[state]
    if a.dim() == 1:
        a = a.unsqueeze(0).unsqueeze(0)
    if a.dtype is u.dtype is state and (initial_state is None or initial_state.dtype is state):
        return DiagonalScanInputs(a, u, initial_state)
    keep_u = state is torch.float32  # in 16 bits
    # A broadcast a needs the compute type: its gradient is a sum. The axis of steps is compared
    # first, so that the graph of a constant a holds for any batch.
    full = a.shape[1] == u.shape[1] and a.shape[2] == u.shape[2] and a.shape[0] == u.shape[0]
    keep_a = keep_u and full and a.dtype is u.dtype
    return DiagonalScanInputs(
        a if keep_a else _cast(a, state),
        u if keep_u else _cast(u, state),
        None if initial_state is None else _cast(initial_state, state),
    )


def _cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x if x.dtype is dtype else x.to(dtype)  # .to() costs a microsecond even when idle


def _launch_forward(
    a: Tensor,
    u: Tensor,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
    reverse: bool,
    save_for_backward: bool,
) -> Results:
    """Run the native kernel; return h and the final state. The gradient needs nothing else."""
    offsets = None if cu_seqlens is None else checked_offsets(NAME, cu_seqlens, u)
    return native.diagonal_scan_forward(a, u, initial_state, reverse=reverse, offsets=offsets)


def _launch_backward(
    grad_h: Tensor,
    grad_final_state: Tensor | None,
    a: Tensor,
    h: Tensor,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
    reverse: bool,
    *wanted: bool,
) -> Results:
    """Run the native kernel; return one gradient per entry of `DiagonalScanInputs`."""
    want_a, want_u, want_state = wanted
    return native.diagonal_scan_backward(
        grad_h,
        grad_final_state,
        a,
        h,
        initial_state,
        reverse=reverse,
        wanted=(want_a, want_u, want_state),
        offsets=None if cu_seqlens is None else kernel_offsets(cu_seqlens, h),
    )


def _fake_state(u: Tensor, cu_seqlens: Tensor | None) -> Tensor:
    sequences = u.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1
    dtype = compute_dtype(u)
    return u.new_empty(
        (sequences, u.shape[2]), dtype=COMPLEX_OF[dtype] if u.is_complex() else dtype
    )


def _fake_forward(
    a: Tensor, u: Tensor, initial_state: Tensor | None, cu_seqlens: Tensor | None, *_: bool
) -> Results:
    return u.new_empty(u.shape), _fake_state(u, cu_seqlens)


def _fake_backward(
    grad_h: Tensor,
    grad_final_state: Tensor | None,
    a: Tensor,
    h: Tensor,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
    reverse: bool,
    *wanted: bool,
) -> Results:
    want_a, want_u, want_state = wanted
    return (
        a.new_empty(a.shape) if want_a else None,
        h.new_empty(h.shape) if want_u else None,
        _fake_state(h, cu_seqlens) if want_state else None,
    )


def _backward_arguments(
    saved: Arguments, options: Arguments, grads: Arguments, wanted: Arguments
) -> Arguments:
    _, h, *_ = saved
    grad_h, grad_final_state = grads
    if grad_h is None:  # only the final state was used
        grad_h = torch.zeros_like(h)
    return (grad_h, grad_final_state, *saved, *options, *wanted[:3])


def _folds(
    a: Tensor, u: Tensor, initial_state: Tensor | None, cu_seqlens: Tensor | None, *_: bool
) -> tuple[bool, ...] | None:
    """Which arguments of the forward pass have the batch first: for vmap."""
    if cu_seqlens is not None:  # packed sequences have no batch
        return None
    return (a.shape[0] == u.shape[0], True, True, False, False, False)


_scan = Differentiable(
    NAME,
    Kernel(
        "diagonal_scan_forward",
        "(Tensor a, Tensor u, Tensor? initial_state, Tensor? cu_seqlens, bool reverse, "
        "bool save_for_backward) -> (Tensor, Tensor)",
        _launch_forward,
        _fake_forward,
        _folds,
    ),
    Kernel(
        "diagonal_scan_backward",
        "(Tensor grad_h, Tensor? grad_final_state, Tensor a, Tensor h, Tensor? initial_state, "
        "Tensor? cu_seqlens, bool reverse, bool want_a, bool want_u, bool want_initial_state) "
        "-> (Tensor, Tensor, Tensor)",
        _launch_backward,
        _fake_backward,
    ),
    n_results=2,
    save=lambda arguments, results: (arguments[0], results[0], *arguments[2:4]),
    backward_arguments=_backward_arguments,
)
