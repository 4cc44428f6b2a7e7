"""The SSD scan in chunks: checked tensors in, tensors out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from . import native_extension as extension
from .native_extension import DTYPE_CODES, address, contiguous, resolved

if TYPE_CHECKING:
    from .ssd_scan_autograd import SsdOptions


def _view(tensor: Tensor | None) -> tuple[int, int, int, int, int]:
    """Address and strides of a (b, l, h, p), (b, l, g, n) or (b, l, h) tensor."""
    if tensor is None:
        return (0, 0, 0, 0, 0)
    stride_b, stride_l, stride_h, *stride_p = tensor.stride()
    return (tensor.data_ptr(), stride_b, stride_l, stride_h, stride_p[0] if stride_p else 0)


class _Call:
    """The description of one call for the kernels, and what must live as long as it does."""

    def __init__(
        self,
        x: Tensor,
        dt: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor | None,
        z: Tensor | None,
        dt_bias: Tensor | None,
        initial_state: Tensor | None,
        *,
        options: SsdOptions,
        offsets: Tensor | None,
    ) -> None:
        self.kernels = extension.module_for(x)
        self.activations = [None if m is None else resolved(m) for m in (x, dt, B, C, z)]
        self.parameters = [contiguous(m) for m in (A, D, dt_bias, initial_state)]
        self.offsets = offsets
        b, l, h, p = x.shape
        g, n = B.shape[2:]
        inputs = self.inputs = self.kernels.SsdInputs()
        inputs.set_sizes((b, l, h, p, g, n), DTYPE_CODES[x.dtype])
        inputs.set_activations([_view(m) for m in self.activations])
        inputs.set_parameters([address(m) for m in self.parameters], D is not None and D.dim() == 2)
        if offsets is not None:
            inputs.set_packing(offsets.data_ptr(), offsets.shape[0] - 1)
        inputs.set_mode(
            options.dt_softplus,
            options.dt_min,
            options.dt_max,
            options.reverse,
            torch.get_num_threads(),
        )
        extension.place(inputs, self.kernels, x)
        count = b if offsets is None else offsets.shape[0] - 1
        self.state_shape = (count, h, p, n)


def ssd_scan_forward(
    *inputs: Any, options: SsdOptions, offsets: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The SSD scan: (y, final state).

    inputs: those of `SsdInputs`. x, dt, B, C, z of one type and any strides, the others of the
    compute type. offsets: int64, contiguous, where packed sequences begin, and the end.
    """
    x, A = inputs[0], inputs[2]
    call = _Call(*inputs, options=options, offsets=offsets)
    y, final_state = x.new_empty(x.shape), A.new_empty(call.state_shape)
    call.kernels.ssd_scan_forward(call.inputs, _view(y), address(final_state))
    return y, final_state


def ssd_scan_backward(
    grad_y: Tensor,
    grad_final_state: Tensor | None,
    *inputs: Any,
    options: SsdOptions,
    offsets: Tensor | None,
) -> tuple[Tensor | None, ...]:
    """Gradients of `SsdInputs`, None for what is absent; contiguous, the same bits every time."""
    call = _Call(*inputs, options=options, offsets=offsets)
    grad_y, grad_final_state = resolved(grad_y), contiguous(grad_final_state)
    x, dt, A, B, C, D, z, dt_bias, _ = inputs
    activations = [None if m is None else m.new_empty(m.shape) for m in (x, dt, B, C, z)]
    parameters = [None if m is None else m.new_empty(m.shape) for m in (A, D, dt_bias)]
    grad_state = A.new_empty(call.state_shape)
    call.kernels.ssd_scan_backward(
        call.inputs,
        _view(grad_y),
        address(grad_final_state),
        [_view(m) for m in activations],
        [address(m) for m in (*parameters, grad_state)],
    )
    grad_x, grad_dt, grad_B, grad_C, grad_z = activations
    grad_A, grad_D, grad_bias = parameters
    return grad_x, grad_dt, grad_A, grad_B, grad_C, grad_D, grad_z, grad_bias, grad_state
