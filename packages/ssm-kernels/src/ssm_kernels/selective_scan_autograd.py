"""The native selective scan as a differentiable operator.

The two launch functions below are the only place that calls the kernel, whichever way a call takes
through PyTorch (see `library_autograd`).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import native
from .checks import COMPLEX_OF, checked_offsets, compute_dtype, kernel_offsets
from .library import Arguments, Kernel, Results
from .library_autograd import Differentiable

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
    y, final_state = _scan(*to_kernel_types(inputs), cu_seqlens, *options)
    return _cast(y, inputs.u.dtype), final_state


def to_kernel_types(inputs: ScanInputs) -> ScanInputs:
    """Give the activations one type, parameters and states the compute type.

    With a complex A, B and C are parameters in this respect, with or without a step axis.

    The conversions are ordinary differentiable operations, so gradients return in the type and
    shape of each argument.
    """
    u, delta, A, B, C, D, z, delta_bias, initial_state = inputs
    B_varies, C_varies = B.dim() > 2, C.dim() > 2
    activations = (u, delta, z, B if B_varies else None, C if C_varies else None)
    if A.is_complex():
        real = compute_dtype(*activations)
        state = projected = COMPLEX_OF[real]
        shared = real if real is torch.float64 else _promoted(u, delta, z)
    else:
        shared = projected = _promoted(*activations)
        state = real = torch.float64 if shared is torch.float64 else torch.float32
    return ScanInputs(
        _cast(u, shared),
        _cast(delta, shared),
        _cast(A, state),
        _cast(B, projected if B_varies else state),
        _cast(C, projected if C_varies else state),
        None if D is None else _cast(D, real),
        None if z is None else _cast(z, shared),
        None if delta_bias is None else _cast(delta_bias, real),
        None if initial_state is None else _cast(initial_state, state),
    )


def _promoted(first: Tensor, *others: Tensor | None) -> torch.dtype:
    """Return the type that all share; different ones meet in float32, or float64 if any is.

    As `torch.promote_types`, but that cannot be exported.
    """
    dtype = first.dtype
    for x in others:
        if x is not None and x.dtype is not dtype:
            return compute_dtype(first, *others)
    return dtype


def _cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x if x.dtype is dtype else x.to(dtype)  # .to() costs a microsecond even when idle


# The arguments of the operator: ScanInputs, cu_seqlens, ScanOptions.
_ARGUMENTS = (
    "Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, "
    "Tensor? delta_bias, Tensor? initial_state, Tensor? cu_seqlens, "
    "bool delta_softplus, bool reverse"
)
_N_INPUTS = len(ScanInputs._fields)


def _launch_forward(*arguments: Any) -> Results:
    """Run the native kernel; return y, the final state and what the backward pass restarts from."""
    *inputs, cu_seqlens, delta_softplus, reverse, save_for_backward = arguments
    offsets = None
    if cu_seqlens is not None:
        offsets = checked_offsets(NAME, cu_seqlens, inputs[0])
    y, final_state, checkpoints = native.selective_scan_forward(
        *inputs,
        mode=native.ScanMode(delta_softplus, reverse),
        save_for_backward=save_for_backward,
        offsets=offsets,
    )
    return y, final_state, checkpoints


def _launch_backward(*arguments: Any) -> Results:
    """Run the native kernel; return one gradient per entry of `ScanInputs`."""
    *grads_and_inputs, cu_seqlens, softplus, reverse, checkpoints, need_state_grad = arguments
    return native.selective_scan_backward(
        *grads_and_inputs,  # type: ignore[misc]
        checkpoints,
        mode=native.ScanMode(softplus, reverse),
        need_initial_state_grad=need_state_grad,
        offsets=None if cu_seqlens is None else kernel_offsets(cu_seqlens, grads_and_inputs[0]),
    )


def _fake_forward(*arguments: Any) -> Results:
    inputs = ScanInputs(*arguments[:_N_INPUTS])
    *_, cu_seqlens, _, _, save_for_backward = arguments
    (b, l, d), n = inputs.u.shape, inputs.A.shape[1]
    y, final_state = inputs.u.new_empty((b, l, d)), _fake_state(inputs, cu_seqlens)
    if not save_for_backward:
        return y, final_state, None
    numbers = 2 * n if inputs.A.is_complex() else n
    sequences = None if cu_seqlens is None else cu_seqlens.shape[0] - 1
    shape = native.checkpoint_shape(b, l, d, numbers, sequences)
    checkpoints = inputs.A.new_empty(math.prod(shape), dtype=inputs.A.dtype.to_real())
    return y, final_state, checkpoints


def _fake_backward(grad_y: Tensor, grad_final_state: Tensor | None, *arguments: Any) -> Results:
    inputs, cu_seqlens = ScanInputs(*arguments[:_N_INPUTS]), arguments[_N_INPUTS]
    need_initial_state_grad = arguments[-1]
    gradients = [None if x is None else x.new_empty(x.shape) for x in inputs[:-1]]
    return *gradients, _fake_state(inputs, cu_seqlens) if need_initial_state_grad else None


def _fake_state(inputs: ScanInputs, cu_seqlens: Tensor | None) -> Tensor:
    count = inputs.u.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1
    return inputs.A.new_empty((count, *inputs.A.shape))


def _backward_arguments(
    saved: Arguments, options: Arguments, grads: Arguments, wanted: Arguments
) -> Arguments:
    *inputs, cu_seqlens, checkpoints = saved
    grad_y, grad_final_state = grads
    if grad_y is None:  # only the final state was used
        grad_y = torch.zeros_like(inputs[0])
    need_initial_state_grad = wanted[_N_INPUTS - 1]
    kernel_inputs = (*inputs, cu_seqlens, *options, checkpoints)
    return (grad_y, grad_final_state, *kernel_inputs, need_initial_state_grad)


def _folds(*arguments: Any) -> tuple[bool, ...] | None:
    """Which arguments of the forward pass have the batch first: for vmap."""
    if arguments[_N_INPUTS] is not None:  # packed sequences have no batch
        return None
    _, _, _, B, C, *_ = arguments
    inputs = (True, True, False, B.dim() > 2, C.dim() > 2, False, True, False, True)
    return (*inputs, *[False] * (len(arguments) - _N_INPUTS))


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
