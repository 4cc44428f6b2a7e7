"""The native selective scan as a differentiable operator.

The two launch functions below are the only place that calls the kernel, whichever way a call takes
through PyTorch (see `library_autograd`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from . import native
from .library import Kernel
from .library_autograd import Differentiable
from .packed import CHUNK_STEPS, Share, chunks, run_packed

NAME = "selective_scan"


class ScanInputs(NamedTuple):
    """The tensors of one call, in the order of the kernel's arguments."""

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    delta_bias: Tensor | None
    initial_state: Tensor | None


class ScanOptions(NamedTuple):
    delta_softplus: bool
    reverse: bool


def scan_native(
    inputs: ScanInputs, cu_seqlens: Tensor | None, options: ScanOptions
) -> tuple[Tensor, Tensor]:
    """Return y and the final state; record the call for autograd if a gradient is wanted."""
    y, final_state = _scan(*_to_kernel_types(inputs), cu_seqlens, *options)
    return _cast(y, inputs.u.dtype), final_state


def _to_kernel_types(inputs: ScanInputs) -> ScanInputs:
    """Give the activations one type, parameters and states the compute type, B and C a group axis.

    With a complex A, B and C are parameters in this respect, with or without a step axis.

    The conversions are ordinary differentiable operations, so gradients return in the type and
    shape of each argument.
    """
    u, delta, A, B, C, D, z, delta_bias, initial_state = inputs
    shared = _promoted(u, delta, z, B if B.dim() > 2 else None, C if C.dim() > 2 else None)
    if A.is_complex():
        double = shared in (torch.float64, torch.complex128)
        real = torch.float64 if double else torch.float32
        state = projected = real.to_complex()
        shared = real if double else _promoted(u, delta, z)
    else:
        state = real = torch.float64 if shared is torch.float64 else torch.float32
        projected = shared

    def projection(M: Tensor) -> Tensor:
        if M.dim() == 2:
            return _cast(M, state)
        return _cast(M.unsqueeze(2) if M.dim() == 3 else M, projected)

    return ScanInputs(
        _cast(u, shared),
        _cast(delta, shared),
        _cast(A, state),
        projection(B),
        projection(C),
        None if D is None else _cast(D, real),
        None if z is None else _cast(z, shared),
        None if delta_bias is None else _cast(delta_bias, real),
        None if initial_state is None else _cast(initial_state, state),
    )


def _promoted(first: Tensor, *others: Tensor | None) -> torch.dtype:
    dtype = first.dtype
    for x in others:
        if x is not None and x.dtype is not dtype:
            dtype = torch.promote_types(dtype, x.dtype)
    return dtype


def _cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x if x.dtype is dtype else x.to(dtype)  # .to() costs a microsecond even when idle


# The arguments of the operator: ScanInputs, cu_seqlens, ScanOptions, and what each direction adds.
_ARGUMENTS = (
    "Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, "
    "Tensor? delta_bias, Tensor? initial_state, Tensor? cu_seqlens, "
    "bool delta_softplus, bool reverse"
)
_N_INPUTS = len(ScanInputs._fields)


def _launch_forward(*arguments: Any) -> tuple[Tensor | None, ...]:
    """Run the native kernel; return y, the final state and what the backward pass restarts from."""
    inputs, cu_seqlens = arguments[:_N_INPUTS], arguments[_N_INPUTS]
    *options, save_for_backward = arguments[_N_INPUTS + 1 :]
    delta_softplus, reverse = ScanOptions(*options)

    def launch(*inputs: Tensor | None) -> tuple[Tensor | None, ...]:
        return native.selective_scan_forward(
            *inputs,  # type: ignore[arg-type]
            delta_softplus=delta_softplus,
            reverse=reverse,
            save_for_backward=save_for_backward,
        )

    if cu_seqlens is None:
        return launch(*inputs)
    y, final_state, checkpoints = run_packed(
        NAME,
        launch,
        cu_seqlens,
        list(zip(inputs, shares_of(inputs), strict=True)),
        (Share.STEPS, Share.STATE, Share.CHUNKS),
    )
    if checkpoints is not None:
        spare = _n_checkpoints(inputs[0], cu_seqlens) - checkpoints.shape[1]
        checkpoints = F.pad(checkpoints, (0, 0, 0, 0, 0, spare))
    return y, final_state, checkpoints


def _launch_backward(
    grad_y: Tensor, grad_final_state: Tensor | None, *arguments: Any
) -> tuple[Tensor | None, ...]:
    """Run the native kernel; return one gradient per entry of `ScanInputs`."""
    inputs, cu_seqlens = arguments[:_N_INPUTS], arguments[_N_INPUTS]
    *options, checkpoints, need_initial_state_grad = arguments[_N_INPUTS + 1 :]
    delta_softplus, reverse = ScanOptions(*options)

    def launch(
        grad_y: Tensor, grad_final_state: Tensor | None, *rest: Any
    ) -> tuple[Tensor | None, ...]:
        return native.selective_scan_backward(
            grad_y,
            grad_final_state,
            *rest,
            delta_softplus=delta_softplus,
            reverse=reverse,
            need_initial_state_grad=need_initial_state_grad,
        )

    if cu_seqlens is None:
        return launch(grad_y, grad_final_state, *inputs, checkpoints)
    shares = shares_of(inputs)
    return run_packed(
        NAME,
        launch,
        cu_seqlens,
        [
            (grad_y, Share.STEPS),
            (grad_final_state, Share.STATE),
            *zip(inputs, shares, strict=True),
            (checkpoints, Share.CHUNKS),
        ],
        shares,
    )


def shares_of(inputs: tuple[Any, ...]) -> ScanInputs:
    """What of each tensor belongs to one of several packed sequences."""
    _, _, _, B, C, *_ = inputs
    return ScanInputs(  # type: ignore[arg-type]
        u=Share.STEPS,
        delta=Share.STEPS,
        A=Share.ALL,
        B=Share.STEPS if B.dim() > 2 else Share.ALL,
        C=Share.STEPS if C.dim() > 2 else Share.ALL,
        D=Share.ALL,
        z=Share.STEPS,
        delta_bias=Share.ALL,
        initial_state=Share.STATE,
    )


def _n_checkpoints(u: Tensor, cu_seqlens: Tensor | None) -> int:
    """The checkpoints per sequence; of packed ones the most there can be, whatever the lengths."""
    l = u.shape[1]
    return chunks(l) if cu_seqlens is None else l // CHUNK_STEPS + cu_seqlens.shape[0] - 1


def _fake_forward(*arguments: Any) -> tuple[Tensor | None, ...]:
    u, _, A = arguments[:3]
    cu_seqlens, save_for_backward = arguments[_N_INPUTS], arguments[-1]
    b, _, d = u.shape
    n = A.shape[1]
    n_states = b if cu_seqlens is None else cu_seqlens.shape[0] - 1
    checkpoints = None
    if save_for_backward:
        shape = (b, _n_checkpoints(u, cu_seqlens), 2 * n if A.is_complex() else n, d)
        checkpoints = A.new_empty(shape, dtype=A.dtype.to_real())
    return u.new_empty(u.shape), A.new_empty((n_states, d, n)), checkpoints


def _fake_backward(
    grad_y: Tensor, grad_final_state: Tensor | None, *arguments: Any
) -> tuple[Tensor | None, ...]:
    *others, initial_state = arguments[:_N_INPUTS]
    gradients = [None if x is None else x.new_empty(x.shape) for x in others]
    if not arguments[-1]:
        return (*gradients, None)
    u, A, cu_seqlens = arguments[0], arguments[2], arguments[_N_INPUTS]
    n_states = u.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1
    return (*gradients, A.new_empty((n_states, *A.shape)))


def _folds(*arguments: Any) -> tuple[bool, ...] | None:
    inputs, cu_seqlens = arguments[:_N_INPUTS], arguments[_N_INPUTS]
    if cu_seqlens is not None:
        return None
    shares = shares_of(inputs)
    return tuple(share is not Share.ALL for share in shares) + (False,) * (
        len(arguments) - _N_INPUTS
    )


def _backward_arguments(
    saved: tuple[Any, ...],
    options: tuple[Any, ...],
    grads: tuple[Any, ...],
    wanted: tuple[Any, ...],
) -> tuple[Any, ...]:
    *inputs, cu_seqlens, checkpoints = saved
    grad_y, grad_final_state = grads
    if grad_y is None:  # only the final state was used
        grad_y = torch.zeros_like(inputs[0])
    need_initial_state_grad = wanted[_N_INPUTS - 1]
    return (
        grad_y,
        grad_final_state,
        *inputs,
        cu_seqlens,
        *options,
        checkpoints,
        need_initial_state_grad,
    )


_scan = Differentiable(
    NAME,
    Kernel(
        "selective_scan_forward",
        f"({_ARGUMENTS}, bool save_for_backward) -> (Tensor, Tensor, Tensor)",
        _launch_forward,
        _fake_forward,
        _folds,
    ),
    Kernel(
        "selective_scan_backward",
        f"(Tensor grad_y, Tensor? grad_final_state, {_ARGUMENTS}, Tensor checkpoints, "
        f"bool need_initial_state_grad) -> ({', '.join(['Tensor'] * _N_INPUTS)})",
        _launch_backward,
        _fake_backward,
    ),
    n_results=2,
    save=lambda arguments, results: (*arguments[: _N_INPUTS + 1], results[2]),
    backward_arguments=_backward_arguments,
)
