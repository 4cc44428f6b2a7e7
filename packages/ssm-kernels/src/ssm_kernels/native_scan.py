"""The compiled selective scan: checked tensors in, tensors out."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from . import native_extension as extension
from .native_extension import (
    DTYPE_CODES,
    address,
    coefficient,
    contiguous,
    pairs,
    resolved,
    view,
)

#: Steps per checkpoint, kScanChunk in csrc/params.h.
CHUNK = 32


class ScanMode(NamedTuple):
    """How one scan runs.

    columns: 0, or the width of the image whose rows lie along the steps; time then runs down one
    column after the other.
    """

    delta_softplus: bool = False
    reverse: bool = False
    columns: int = 0


class ScanGradients(NamedTuple):
    """Tensors of any strides for the gradients of a scan; None where a new one is wanted."""

    u: Tensor | None = None
    delta: Tensor | None = None
    z: Tensor | None = None
    B: Tensor | None = None
    C: Tensor | None = None


NEW_GRADIENTS = ScanGradients()


def checkpoint_shape(
    b: int, l: int, d: int, numbers: int, sequences: int | None
) -> tuple[int, int, int, int]:
    """Shape of the states kept for the backward pass; `sequences` packed ones, or None.

    The tensor has them all on one axis: on an axis of their own, a compiler would ask whether the
    chunks are one or more, and compile lengths up to 32 separately.

    numbers: n, or 2 n for a complex A. Packed sequences need at most l // 32 + sequences places.
    """
    chunks = (l + CHUNK - 1) // CHUNK if sequences is None else l // CHUNK + sequences
    return (b, chunks, numbers, d)


#: (u, delta, A, B, C, D, z, delta_bias, initial_state)
ScanTensors = tuple[
    Tensor,
    Tensor,
    Tensor,
    Tensor,
    Tensor,
    Tensor | None,
    Tensor | None,
    Tensor | None,
    Tensor | None,
]


class Scan:
    """The inputs of one scan, contiguous where the kernels need it, and their C++ description."""

    def __init__(self, tensors: ScanTensors, offsets: Tensor | None, mode: ScanMode) -> None:
        u, delta, A, B, C, D, z, delta_bias, initial_state = tensors
        # Kept as attributes: the C++ side holds addresses only, so they must outlive the call.
        self.u, self.delta = resolved(u), resolved(delta)
        self.z = None if z is None else resolved(z)
        self.A, self.D = contiguous(A), contiguous(D)
        self.B = contiguous(B) if B.dim() == 2 else resolved(B)
        self.C = contiguous(C) if C.dim() == 2 else resolved(C)
        self.delta_bias, self.initial_state = contiguous(delta_bias), contiguous(initial_state)
        self.batch, self.steps, self.channels = u.shape
        self.states = A.shape[1]
        self.kernels = extension.module_for(u)
        inputs = self.kernels.ScanInputs()
        sizes = (self.batch, self.steps, self.channels, self.states)
        inputs.set_sizes(*sizes, DTYPE_CODES[u.dtype], A.is_complex())
        inputs.set_sequences(
            view(self.u), view(self.delta), view(self.z), coefficient(self.B), coefficient(self.C)
        )
        # Equal entries of a row that lie in one place: one exponential instead of n
        shared_decay = A.stride(1) == 0 and not A.is_complex()
        inputs.set_parameters(
            address(self.A),
            shared_decay,
            address(self.D),
            address(self.delta_bias),
            address(self.initial_state),
        )
        self.sequences = None if offsets is None else offsets.shape[0] - 1
        if offsets is not None:
            inputs.set_packing(offsets.data_ptr(), offsets.shape[0] - 1)
        inputs.set_mode(mode.delta_softplus, mode.reverse, mode.columns, torch.get_num_threads())
        extension.place(inputs, self.kernels, u)
        self.inputs = inputs

    def empty_state(self) -> Tensor:
        count = self.batch if self.sequences is None else self.sequences
        return self.A.new_empty((count, self.channels, self.states))

    def empty_checkpoints(self) -> Tensor:
        numbers = 2 * self.states if self.A.is_complex() else self.states
        shape = checkpoint_shape(self.batch, self.steps, self.channels, numbers, self.sequences)
        # Packed sequences leave places empty; what is in them must not differ from call to call.
        make = self.A.new_empty if self.sequences is None else self.A.new_zeros
        return make((math.prod(shape),), dtype=self.A.dtype.to_real())


def selective_scan_forward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    *,
    mode: ScanMode,
    save_for_backward: bool,
    offsets: Tensor | None = None,
    into: Tensor | None = None,
    add: bool = False,
    checkpoints: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The selective scan: (y, final state, checkpoints for the backward pass or None).

    u, delta, z: (b, l, d) of one dtype, any strides. A: (d, n). B, C: (b, l, g, n) of that dtype,
    any strides, or (d, n). D, delta_bias: (d,). States: (b, d, n). A, constant B and C, D,
    delta_bias and the states have the compute type: float64 for float64 inputs, otherwise float32.
    With a complex A, all of B, C and the states are complex, of the compute type, and y is twice
    the real part of the sum of C h.

    offsets: int64, contiguous, where packed sequences begin, and the end; states then have one row
    per sequence. into: (b, l, d) of any type and strides, which takes the place of a new y; with
    `add` the scan is added to what it holds, and the gate is applied to the sum.

    The checkpoints (see `checkpoint_shape`) hold the state before every 32nd step of a sequence;
    real and imaginary parts take turns along n. A contiguous tensor given for them is filled
    instead of a new one.
    """
    scan = Scan((u, delta, A, B, C, D, z, delta_bias, initial_state), offsets, mode)
    y = u.new_empty(u.shape) if into is None else into
    final_state = scan.empty_state()
    if save_for_backward and checkpoints is None:
        checkpoints = scan.empty_checkpoints()
    scan.kernels.selective_scan_forward(
        scan.inputs, view(y), add, final_state.data_ptr(), address(checkpoints)
    )
    return y, final_state, checkpoints


def selective_scan_backward(
    grad_y: Tensor,
    grad_final_state: Tensor | None,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    checkpoints: Tensor,
    *,
    mode: ScanMode,
    need_initial_state_grad: bool,
    offsets: Tensor | None = None,
    into: ScanGradients = NEW_GRADIENTS,
    add: tuple[bool, bool] = (False, False),
) -> tuple[Tensor | None, ...]:
    """Gradients of (u, delta, A, B, C, D, z, delta_bias, initial_state), None for what is absent.

    Arguments as in selective_scan_forward; grad_y: (b, l, d) of u's dtype, any strides;
    grad_final_state: (b, d, n). Gradients have the dtype and shape of their tensor and are
    contiguous. The result is bit-equal for any number of threads. The gradient of the initial
    state is None unless asked for. into: tensors that take the place of new gradients; add:
    whether the gradients of u and of z are added to what theirs hold.
    """
    scan = Scan((u, delta, A, B, C, D, z, delta_bias, initial_state), offsets, mode)
    grad_y, grad_final_state = resolved(grad_y), contiguous(grad_final_state)

    def made(like: Tensor, given: Tensor | None) -> Tensor:
        return like.new_empty(like.shape) if given is None else given

    grad_u, grad_delta = made(u, into.u), made(delta, into.delta)
    grad_z = None if z is None else made(z, into.z)
    grad_A, grad_B, grad_C = A.new_empty(A.shape), made(B, into.B), made(C, into.C)
    grad_D = None if D is None else D.new_empty(D.shape)
    grad_bias = None if delta_bias is None else delta_bias.new_empty(delta_bias.shape)
    grad_initial = scan.empty_state() if need_initial_state_grad else None
    scan.kernels.selective_scan_backward(
        scan.inputs,
        view(grad_y),
        address(grad_final_state),
        checkpoints.data_ptr(),
        (view(grad_u), view(grad_delta), view(grad_z)),
        add,
        (coefficient(pairs(grad_B)), coefficient(pairs(grad_C))),
        (address(grad_A), address(grad_D), address(grad_bias), address(grad_initial)),
    )
    return grad_u, grad_delta, grad_A, grad_B, grad_C, grad_D, grad_z, grad_bias, grad_initial
