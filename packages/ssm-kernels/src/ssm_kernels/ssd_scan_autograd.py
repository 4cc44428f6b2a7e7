"""The fast SSD scan as a differentiable operator.

The two launch functions below are the only place that computes, whichever way a call takes through
PyTorch (see `library_autograd`): the native kernels of the CPU or of CUDA in chunks, on the CPU
also step by step, and plain PyTorch where somebody asks for chunks of a size or has no kernels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import native_extension as extension
from . import native_ssd_scan, ssd_chunked, ssd_chunked_backward, ssd_steps
from .checks import checked_lengths, compute_dtype, kernel_offsets
from .library import Arguments, Kernel, Results
from .library_autograd import Differentiable

NAME = "ssd_scan"


class SsdInputs(NamedTuple):
    """The tensors of one call, in the order of the kernel's arguments."""

    x: Tensor
    dt: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    dt_bias: Tensor | None
    initial_state: Tensor | None


class SsdOptions(NamedTuple):
    dt_softplus: bool
    dt_min: float
    dt_max: float
    reverse: bool
    chunk_size: int  # 0: whatever is fast


def ssd_scan_native(
    inputs: SsdInputs, cu_seqlens: Tensor | None, options: SsdOptions
) -> tuple[Tensor, Tensor]:
    """Return y and the final state; record the call for autograd if a gradient is wanted."""
    y, final_state = _scan(*_to_kernel_types(inputs), cu_seqlens, *options)
    return _cast(y, inputs.x.dtype), final_state


def _to_kernel_types(inputs: SsdInputs) -> SsdInputs:
    """Give the activations one type, parameters and states the compute type.

    The conversions are ordinary differentiable operations, so gradients return in the type of each
    argument.
    """
    x, dt, A, B, C, D, z, dt_bias, initial_state = inputs
    activations = [a for a in (x, dt, B, C, z) if a is not None]
    state = compute_dtype(*activations)
    shared = x.dtype if all(a.dtype is x.dtype for a in activations) else state
    return SsdInputs(
        _cast(x, shared),
        _cast(dt, shared),
        _cast(A, state),
        _cast(B, shared),
        _cast(C, shared),
        None if D is None else _cast(D, state),
        None if z is None else _cast(z, shared),
        None if dt_bias is None else _cast(dt_bias, state),
        None if initial_state is None else _cast(initial_state, state),
    )


def _cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x if x.dtype is dtype else x.to(dtype)  # .to() costs a microsecond even when idle


_ARGUMENTS = (
    "Tensor x, Tensor dt, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? dt_bias, "
    "Tensor? initial_state, Tensor? cu_seqlens, bool dt_softplus, float dt_min, float dt_max, "
    "bool reverse, int chunk_size"
)
_N_INPUTS = len(SsdInputs._fields)


def _launch_forward(*arguments: Any) -> Results:
    """Return y and the final state. The gradient needs the inputs alone."""
    inputs, cu_seqlens = SsdInputs(*arguments[:_N_INPUTS]), arguments[_N_INPUTS]
    options = SsdOptions(*arguments[_N_INPUTS + 1 : -1])
    lengths, offsets = _sequences(cu_seqlens, inputs.x)
    with _own_types(inputs.x):
        if _in_torch(inputs.x, options):
            return ssd_chunked.forward(*inputs, options=options, lengths=lengths)
        if _on_cpu(inputs.x) and ssd_steps.pays(inputs, gradient=False):
            return ssd_steps.forward(inputs, options, offsets)
    return native_ssd_scan.ssd_scan_forward(*inputs, options=options, offsets=offsets)


def _launch_backward(*arguments: Any) -> Results:
    """Return one gradient per entry of `SsdInputs`."""
    options, need_state_grad = SsdOptions(*arguments[_N_INPUTS + 3 : -1]), arguments[-1]
    grad_y, grad_state, *rest = arguments[: _N_INPUTS + 2]
    inputs = SsdInputs(*rest)
    lengths, offsets = _sequences(arguments[_N_INPUTS + 2], inputs.x)
    with _own_types(inputs.x):
        if _in_torch(inputs.x, options):
            gradients = ssd_chunked_backward.backward(
                grad_y, grad_state, *inputs, options=options, lengths=lengths
            )
        elif _on_cpu(inputs.x) and ssd_steps.pays(inputs, gradient=True):
            gradients = ssd_steps.backward(grad_y, grad_state, inputs, options, offsets)
        else:
            gradients = native_ssd_scan.ssd_scan_backward(
                grad_y, grad_state, *inputs, options=options, offsets=offsets
            )
    return *gradients[:-1], gradients[-1] if need_state_grad else None


def _in_torch(x: Tensor, options: SsdOptions) -> bool:
    """Whether somebody asked for chunks of a size, or the kernels are not there."""
    return _on_cpu(x) and (options.chunk_size > 0 or extension._native is None)


def _on_cpu(x: Tensor) -> bool:
    module = extension.module_for(x)
    return module is None or module is extension._native  # else CUDA, or simulated


def _own_types(x: Tensor) -> torch.autocast:
    """Autocast would round the products of matrices to 16 bits; the operator's sums are wider."""
    return torch.autocast(x.device.type, enabled=False)


def _sequences(cu_seqlens: Tensor | None, x: Tensor) -> tuple[list[int] | None, Tensor | None]:
    """The lengths of packed sequences and their offsets as kernels read them.

    For tensors on a GPU, offsets there are not read, as that would wait for it: the kernels confine
    what is out of range.
    """
    if cu_seqlens is None:
        return None, None
    lengths = None
    if "cpu" in (cu_seqlens.device.type, x.device.type):
        lengths = checked_lengths(NAME, cu_seqlens, x.shape[1])
    return lengths, kernel_offsets(cu_seqlens, x)


def _fake_forward(*arguments: Any) -> Results:
    inputs = SsdInputs(*arguments[:_N_INPUTS])
    return inputs.x.new_empty(inputs.x.shape), _fake_state(inputs, arguments[_N_INPUTS])


def _fake_backward(grad_y: Tensor, grad_final_state: Tensor | None, *arguments: Any) -> Results:
    inputs, cu_seqlens = SsdInputs(*arguments[:_N_INPUTS]), arguments[_N_INPUTS]
    gradients = [None if x is None else x.new_empty(x.shape) for x in inputs[:-1]]
    return *gradients, _fake_state(inputs, cu_seqlens) if arguments[-1] else None


def _fake_state(inputs: SsdInputs, cu_seqlens: Tensor | None) -> Tensor:
    b, _, h, p = inputs.x.shape
    count = b if cu_seqlens is None else cu_seqlens.shape[0] - 1
    return inputs.A.new_empty((count, h, p, inputs.B.shape[3]))


def _backward_arguments(
    saved: Arguments, options: Arguments, grads: Arguments, wanted: Arguments
) -> Arguments:
    grad_y, grad_final_state = grads
    if grad_y is None:  # only the final state was used
        grad_y = torch.zeros_like(saved[0])
    return (grad_y, grad_final_state, *saved, *options, wanted[_N_INPUTS - 1])


def _folds(*arguments: Any) -> tuple[bool, ...] | None:
    """Which arguments of the forward pass have the batch first: for vmap."""
    if arguments[_N_INPUTS] is not None:  # packed sequences have no batch
        return None
    inputs = (True, True, False, True, True, False, True, False, True)
    return (*inputs, *[False] * (len(arguments) - _N_INPUTS))


_scan = Differentiable(
    NAME,
    Kernel(
        "ssd_scan_forward",
        f"({_ARGUMENTS}, bool save_for_backward) -> (Tensor, Tensor)",
        _launch_forward,
        _fake_forward,
        _folds,
    ),
    Kernel(
        "ssd_scan_backward",
        f"(Tensor grad_y, Tensor? grad_final_state, {_ARGUMENTS}, bool need_initial_state_grad) "
        f"-> ({', '.join(['Tensor'] * _N_INPUTS)})",
        _launch_backward,
        _fake_backward,
    ),
    n_results=2,
    save=lambda arguments, results: arguments[: _N_INPUTS + 1],
    backward_arguments=_backward_arguments,
)
