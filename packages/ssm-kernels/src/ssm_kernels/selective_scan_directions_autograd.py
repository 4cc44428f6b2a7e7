"""The native scans of several directions as one differentiable function.

Each direction is one compiled scan on views of the arguments. The scans add to one output, and
their backward passes to one gradient of what the directions share. The gate is applied
by the last direction. Its gradient needs no stored sum: it is linear in y, so every direction adds
the part of its own y.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import native
from .library import Arguments, Kernel, Results
from .library_autograd import Differentiable
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


def scan_directions_native(
    inputs: DirectionInputs, delta_softplus: bool, directions: tuple[str, ...], columns: int
) -> Tensor:
    """Return y; record the call for autograd if a gradient is wanted."""
    prepared = _to_kernel_types(inputs)
    (y,) = _scan(*prepared, delta_softplus, ",".join(directions), columns)
    return y.to(inputs.u.dtype)


def _to_kernel_types(inputs: DirectionInputs) -> DirectionInputs:
    """Give every tensor the type the kernel takes, and B and C an axis of groups."""
    u, delta, A, B, C, D, z, delta_bias = inputs
    B = B.unsqueeze(3) if B.dim() == 4 else B
    C = C.unsqueeze(3) if C.dim() == 4 else C
    *typed, _ = to_kernel_types(ScanInputs(u, delta, A, B, C, D, z, delta_bias, None))
    return DirectionInputs(*typed)  # type: ignore[arg-type]


def _modes(delta_softplus: bool, directions: str, columns: int) -> list[native.ScanMode]:
    ways = (DIRECTIONS[name] for name in directions.split(","))
    return [
        native.ScanMode(delta_softplus, way.reverse, columns if way.by_columns else 0)
        for way in ways
    ]


def _one(inputs: DirectionInputs, k: int, gated: bool) -> native.ScanTensors:
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


def _launch_forward(*arguments: Any) -> Results:
    """Return y in the type in which its terms are added up, and the checkpoints."""
    *tensors, delta_softplus, directions, columns, save_for_backward = arguments
    inputs = DirectionInputs(*tensors)
    y = _sum_like(inputs.u, inputs.delta[:, :, 0])
    checkpoints = _empty_checkpoints(inputs) if save_for_backward else None
    modes = _modes(delta_softplus, directions, columns)
    native.selective_scan_directions_forward(
        [_one(inputs, k, gated=k == len(modes) - 1) for k in range(len(modes))],
        modes,
        into=y,
        checkpoints=checkpoints,
    )
    return y, checkpoints


def _launch_backward(*arguments: Any) -> Results:
    """Return one gradient per entry of `DirectionInputs`."""
    grad_y, *tensors, delta_softplus, directions, columns, checkpoints = arguments
    inputs = DirectionInputs(*tensors)
    u, z = inputs.u, inputs.z
    at_once = native.adds_up_in_any_type(u)
    grad_u = u.new_empty(u.shape) if at_once or u.dim() == 4 else _sum_like(u, u)
    grad_delta, grad_B, grad_C = (x.new_empty(x.shape) for x in (inputs.delta, inputs.B, inputs.C))
    grad_z = None if z is None else z.new_empty(z.shape) if at_once else _sum_like(z, z)
    modes = _modes(delta_softplus, directions, columns)
    into = [
        native.ScanGradients(
            grad_u if u.dim() == 3 else grad_u[:, :, k],
            grad_delta[:, :, k],
            grad_z,
            grad_B[:, :, k],
            grad_C[:, :, k],
        )
        for k in range(len(modes))
    ]
    grad_A, grad_D, grad_bias = native.selective_scan_directions_backward(
        grad_y,
        [_one(inputs, k, gated=True) for k in range(len(modes))],
        modes,
        checkpoints=checkpoints,
        into=into,
    )
    grad_u = grad_u.to(u.dtype)
    grad_z = None if grad_z is None or z is None else grad_z.to(z.dtype)
    return grad_u, grad_delta, grad_A, grad_B, grad_C, grad_D, grad_z, grad_bias


def _sum_like(x: Tensor, shaped: Tensor) -> Tensor:
    """An empty tensor in which several terms can be added up without rounding each to 16 bits."""
    wide = torch.float64 if x.dtype is torch.float64 else torch.float32
    return x.new_empty(shaped.shape, dtype=wide)


def _empty_checkpoints(inputs: DirectionInputs) -> Tensor:
    """(k, b, chunks, n, d), see `native.checkpoint_shape`."""
    b, l, k, d = inputs.delta.shape
    numbers = 2 * inputs.A.shape[2] if inputs.A.is_complex() else inputs.A.shape[2]
    shape = (k, *native.checkpoint_shape(b, l, d, numbers, None))
    return inputs.A.new_empty(shape, dtype=inputs.A.dtype.to_real())


def _fake_forward(*arguments: Any) -> Results:
    inputs = DirectionInputs(*arguments[:_N_INPUTS])
    y = _sum_like(inputs.u, inputs.delta[:, :, 0])
    return y, _empty_checkpoints(inputs) if arguments[-1] else None


def _fake_backward(grad_y: Tensor, *arguments: Any) -> Results:
    return tuple(None if x is None else x.new_empty(x.shape) for x in arguments[:_N_INPUTS])


def _backward_arguments(
    saved: Arguments, options: Arguments, grads: Arguments, wanted: Arguments
) -> Arguments:
    *inputs, checkpoints = saved
    (grad_y,) = grads
    if grad_y is None:
        grad_y = _sum_like(inputs[0], inputs[1][:, :, 0]).zero_()
    return (grad_y, *inputs, *options, checkpoints)


_N_INPUTS = len(DirectionInputs._fields)
_ARGUMENTS = (
    "Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, "
    "Tensor? delta_bias, bool delta_softplus, str directions, int columns"
)
_scan = Differentiable(
    NAME,
    Kernel(
        f"{NAME}_forward",
        f"({_ARGUMENTS}, bool save_for_backward) -> (Tensor, Tensor)",
        _launch_forward,
        _fake_forward,
    ),
    Kernel(
        f"{NAME}_backward",
        f"(Tensor grad_y, {_ARGUMENTS}, Tensor checkpoints) "
        f"-> ({', '.join(['Tensor'] * _N_INPUTS)})",
        _launch_backward,
        _fake_backward,
    ),
    n_results=1,
    save=lambda arguments, results: (*arguments[:_N_INPUTS], results[1]),
    backward_arguments=_backward_arguments,
)
