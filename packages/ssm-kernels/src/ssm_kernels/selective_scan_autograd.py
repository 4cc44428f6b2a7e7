"""The native selective scan as a differentiable function.

Left out on purpose: registration with `torch.library`. The launch functions below are the only
place that calls the kernel, so that a registration can share them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import native
from .second_derivative import refuse_second_derivative

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


def scan_native(inputs: ScanInputs, options: ScanOptions) -> tuple[Tensor, Tensor]:
    """Return y and the final state; record the call for autograd if a gradient is wanted."""
    prepared = to_kernel_types(inputs)
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in prepared):
        y, final_state = _SelectiveScan.apply(options, *prepared)
    else:
        y, final_state, _ = _launch_forward(prepared, options, save_for_backward=False)
    return _cast(y, inputs.u.dtype), final_state


def to_kernel_types(inputs: ScanInputs) -> ScanInputs:
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


def _launch_forward(
    inputs: ScanInputs, options: ScanOptions, save_for_backward: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Run the native kernel; return y, the final state and what the backward pass restarts from."""
    return native.selective_scan_forward(
        *inputs,
        mode=native.ScanMode(options.delta_softplus, options.reverse),
        save_for_backward=save_for_backward,
    )


def _launch_backward(
    grad_y: Tensor,
    grad_final_state: Tensor | None,
    inputs: ScanInputs,
    checkpoints: Tensor,
    options: ScanOptions,
    need_initial_state_grad: bool,
) -> tuple[Tensor | None, ...]:
    """Run the native kernel; return one gradient per entry of `inputs`."""
    return native.selective_scan_backward(
        grad_y,
        grad_final_state,
        *inputs,
        checkpoints,
        mode=native.ScanMode(options.delta_softplus, options.reverse),
        need_initial_state_grad=need_initial_state_grad,
    )


class _SelectiveScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, options: ScanOptions, *tensors: Tensor | None) -> tuple[Tensor, Tensor]:
        inputs = ScanInputs(*tensors)  # type: ignore[arg-type]
        y, final_state, checkpoints = _launch_forward(inputs, options, save_for_backward=True)
        ctx.options = options
        ctx.save_for_backward(*inputs, checkpoints)
        ctx.set_materialize_grads(False)
        return y, final_state

    @staticmethod
    def backward(
        ctx: Any, grad_y: Tensor | None, grad_final_state: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        *tensors, checkpoints = ctx.saved_tensors
        inputs = ScanInputs(*tensors)
        if grad_y is None:  # only the final state was used
            grad_y = torch.zeros_like(inputs.u)
        gradients = _launch_backward(
            grad_y,
            grad_final_state,
            inputs,
            checkpoints,
            ctx.options,
            need_initial_state_grad=ctx.needs_input_grad[-1],
        )
        outer = (*inputs, grad_y, grad_final_state)
        return None, *refuse_second_derivative(NAME, gradients, outer)
