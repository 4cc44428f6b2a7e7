"""The native diagonal scan as a differentiable function."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import native
from .checks import compute_dtype
from .second_derivative import refuse_second_derivative

NAME = "diagonal_scan"


class ScanInputs(NamedTuple):
    """The tensors of one call, in the order of the kernel's arguments."""

    a: Tensor
    u: Tensor
    initial_state: Tensor | None


class ScanOptions(NamedTuple):
    reverse: bool


def scan_native(
    inputs: ScanInputs, offsets: Tensor | None, options: ScanOptions
) -> tuple[Tensor, Tensor]:
    """Return h and the final state; record the call for autograd if a gradient is wanted."""
    prepared = _to_kernel_types(inputs)
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in prepared):
        h, final_state = _DiagonalScan.apply(options, offsets, *prepared)
    else:
        h, final_state = _launch_forward(prepared, offsets, options)
    return _cast(h, result_dtype(inputs)), final_state


def is_complex(inputs: ScanInputs) -> bool:
    return any(x is not None and x.is_complex() for x in inputs)


def result_dtype(inputs: ScanInputs) -> torch.dtype:
    """Return the type of h: that of u, made complex if anything is."""
    u = inputs.u
    return compute_dtype(u).to_complex() if is_complex(inputs) else u.dtype


def state_dtype(inputs: ScanInputs) -> torch.dtype:
    """Return the type of sums and states: float64 if a or u is, else float32; or complex."""
    real = compute_dtype(inputs.a, inputs.u)
    return real.to_complex() if is_complex(inputs) else real


def _to_kernel_types(inputs: ScanInputs) -> ScanInputs:
    """Give u and a full a one type, a broadcast a and the state the compute type, a three axes.

    The conversions are ordinary differentiable operations, so gradients return in the type and
    shape of each argument. A complex operand makes the others complex.
    """
    a, u, initial_state = inputs
    state = state_dtype(inputs)
    if a.dim() == 1:
        a = a.view(1, 1, -1)
    if a.shape != u.shape:
        shared = state if state in (torch.float64, torch.complex128) else u.dtype
    else:
        shared = torch.promote_types(a.dtype, u.dtype)
    if state.is_complex:
        shared = state
    return ScanInputs(
        _cast(a, shared if a.shape == u.shape else state),
        _cast(u, shared),
        None if initial_state is None else _cast(initial_state, state),
    )


def _cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x if x.dtype is dtype else x.to(dtype)  # .to() costs a microsecond even when idle


def _launch_forward(
    inputs: ScanInputs, offsets: Tensor | None, options: ScanOptions
) -> tuple[Tensor, Tensor]:
    """Run the native kernel; return h and the final state."""
    return native.diagonal_scan_forward(*inputs, offsets, reverse=options.reverse)


def _launch_backward(
    grad_h: Tensor,
    grad_final_state: Tensor | None,
    inputs: ScanInputs,
    h: Tensor,
    offsets: Tensor | None,
    options: ScanOptions,
    wanted: tuple[bool, bool, bool],
) -> tuple[Tensor | None, ...]:
    """Run the native kernel; return one gradient per entry of `inputs`, None if not wanted.

    The backward pass needs h in the place of u.
    """
    a, _, initial_state = inputs
    return native.diagonal_scan_backward(
        grad_h,
        grad_final_state,
        a,
        h,
        initial_state,
        offsets,
        reverse=options.reverse,
        wanted=wanted,
    )


class _DiagonalScan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, options: ScanOptions, offsets: Tensor | None, *tensors: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        inputs = ScanInputs(*tensors)  # type: ignore[arg-type]
        h, final_state = _launch_forward(inputs, offsets, options)
        ctx.options = options
        ctx.save_for_backward(inputs.a, inputs.initial_state, offsets, h)
        ctx.set_materialize_grads(False)
        return h, final_state

    @staticmethod
    def backward(
        ctx: Any, grad_h: Tensor | None, grad_final_state: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        a, initial_state, offsets, h = ctx.saved_tensors
        inputs = ScanInputs(a, h, initial_state)
        if grad_h is None:  # only the final state was used
            grad_h = torch.zeros_like(h)
        wanted = ctx.needs_input_grad[2:]
        gradients = _launch_backward(
            grad_h, grad_final_state, inputs, h, offsets, ctx.options, wanted
        )
        outer = (a, h, initial_state, grad_h, grad_final_state)
        return None, None, *refuse_second_derivative(NAME, gradients, outer)
