"""The native scans of several directions as one differentiable function.

Each direction is one call of the compiled scan on views of the arguments. The calls add to one
output, and their backward passes to one gradient of what the directions share. The gate is applied
by the last direction. Its gradient needs no stored sum: it is linear in y, so every direction adds
the part of its own y.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import native
from .second_derivative import refuse_second_derivative
from .selective_scan_autograd import ScanInputs, to_kernel_types

NAME = "selective_scan_directions"


class Direction(NamedTuple):
    reverse: bool
    by_columns: bool


DIRECTIONS = {
    "forward": Direction(reverse=False, by_columns=False),
    "backward": Direction(reverse=True, by_columns=False),
    "down": Direction(reverse=False, by_columns=True),
    "up": Direction(reverse=True, by_columns=True),
}


class DirectionInputs(NamedTuple):
    """The tensors of one call; see `selective_scan_directions`."""

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    delta_bias: Tensor | None


class _Options(NamedTuple):
    modes: tuple[native.ScanMode, ...]
    dtype: torch.dtype  # of y


def scan_directions_native(
    inputs: DirectionInputs, delta_softplus: bool, directions: tuple[str, ...], columns: int
) -> Tensor:
    """Return y; record the call for autograd if a gradient is wanted."""
    modes = tuple(
        native.ScanMode(delta_softplus, way.reverse, columns if way.by_columns else 0)
        for way in map(DIRECTIONS.__getitem__, directions)
    )
    options = _Options(modes, inputs.u.dtype)
    prepared = _to_kernel_types(inputs)
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in prepared):
        y: Tensor = _Directions.apply(options, *prepared)
        return y
    return _launch_forward(prepared, options, save_for_backward=False)[0]


def _to_kernel_types(inputs: DirectionInputs) -> DirectionInputs:
    """Give every tensor the type the kernel takes, and B and C an axis of groups."""
    u, delta, A, B, C, D, z, delta_bias = inputs
    B = B.unsqueeze(3) if B.dim() == 4 else B
    C = C.unsqueeze(3) if C.dim() == 4 else C
    return DirectionInputs(
        *to_kernel_types(ScanInputs(u, delta, A, B, C, D, z, delta_bias, None))[:8]
    )


def _one(inputs: DirectionInputs, k: int, gated: bool) -> tuple[Any, ...]:
    """The arguments of direction k, as views."""
    u, delta, A, B, C, D, z, delta_bias = inputs
    return (
        u if u.dim() == 3 else u[:, :, k],
        delta[:, :, k],
        A[k],
        B[:, :, k],
        C[:, :, k],
        None if D is None else D[k],
        z if gated else None,
        None if delta_bias is None else delta_bias[k],
        None,  # no initial state
    )


def _launch_forward(
    inputs: DirectionInputs, options: _Options, save_for_backward: bool
) -> tuple[Tensor, list[Tensor]]:
    """Return y and the checkpoints of every direction."""
    last = len(options.modes) - 1
    total = _sum_like(inputs.u, inputs.delta[:, :, 0])
    checkpoints = []
    for k, mode in enumerate(options.modes):
        _, _, saved = native.selective_scan_forward(
            *_one(inputs, k, gated=k == last),
            mode=mode,
            save_for_backward=save_for_backward,
            into=total,
            add=k > 0,
        )
        if saved is not None:
            checkpoints.append(saved)
    return total.to(options.dtype), checkpoints


def _launch_backward(
    grad_y: Tensor, inputs: DirectionInputs, checkpoints: list[Tensor], options: _Options
) -> tuple[Tensor | None, ...]:
    """Return one gradient per entry of `inputs`."""
    u, z = inputs.u, inputs.z
    grad_u = u.new_empty(u.shape) if u.dim() == 4 else _sum_like(u, u)
    grad_delta, grad_B, grad_C = (x.new_empty(x.shape) for x in (inputs.delta, inputs.B, inputs.C))
    grad_z = None if z is None else _sum_like(z, z)
    parameters: list[tuple[Tensor | None, ...]] = []
    for k, mode in enumerate(options.modes):
        into = native.ScanGradients(
            grad_u if u.dim() == 3 else grad_u[:, :, k],
            grad_delta[:, :, k],
            grad_z,
            grad_B[:, :, k],
            grad_C[:, :, k],
        )
        arguments = (grad_y.to(u.dtype), None, *_one(inputs, k, gated=True), checkpoints[k])
        found = native.selective_scan_backward(
            *arguments,
            mode=mode,
            need_initial_state_grad=False,
            into=into,
            add=(k > 0 and u.dim() == 3, k > 0),
        )
        parameters.append((found[2], found[5], found[7]))
    grad_A, grad_D, grad_bias = (
        None if column[0] is None else torch.stack(column)
        for column in zip(*parameters, strict=True)
    )
    grad_u = grad_u.to(u.dtype)
    grad_z = None if grad_z is None or z is None else grad_z.to(z.dtype)
    return grad_u, grad_delta, grad_A, grad_B, grad_C, grad_D, grad_z, grad_bias


def _sum_like(x: Tensor, shaped: Tensor) -> Tensor:
    """An empty tensor in which several terms can be added up without rounding each to 16 bits."""
    wide = torch.float64 if x.dtype is torch.float64 else torch.float32
    return x.new_empty(shaped.shape, dtype=wide)


class _Directions(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, options: _Options, *tensors: Tensor | None) -> Tensor:
        inputs = DirectionInputs(*tensors)  # type: ignore[arg-type]
        y, checkpoints = _launch_forward(inputs, options, save_for_backward=True)
        ctx.options = options
        ctx.save_for_backward(*inputs, *checkpoints)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        inputs = DirectionInputs(*ctx.saved_tensors[:8])
        gradients = _launch_backward(grad_y, inputs, ctx.saved_tensors[8:], ctx.options)
        return None, *refuse_second_derivative(NAME, gradients, (*inputs, grad_y))
