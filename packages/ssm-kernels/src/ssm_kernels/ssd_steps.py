"""The SSD scan step by step on the CPU, as a selective scan whose states share their decay.

A head of Mamba-2 is p channels of Mamba with the same step size and one decay for all n states. A
step then takes one exponential per channel and three operations per state, which the kernel does
from registers: for small heads less time than the products of the chunked form.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from .checks import compute_dtype
from .native_scan import (
    ScanMode,
    ScanTensors,
    selective_scan_backward,
    selective_scan_forward,
)
from .ssd_chunked import step_sizes
from .ssd_chunked_backward import through_limits

if TYPE_CHECKING:
    from .ssd_scan_autograd import SsdInputs, SsdOptions


def forward(
    inputs: SsdInputs, options: SsdOptions, offsets: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return y and the final state; `offsets` are those of packed sequences."""
    x = inputs.x
    step = step_sizes(inputs.dt, inputs.dt_bias, options)[1]
    y, state, _ = selective_scan_forward(
        *_channels(inputs, step, offsets),
        mode=ScanMode(reverse=options.reverse),
        save_for_backward=False,
        offsets=offsets,
    )
    return y.view(x.shape).to(x.dtype), _by_heads(state, inputs)


def pays(inputs: SsdInputs, *, gradient: bool) -> bool:
    """Whether steps take less time than chunks: heads that do not fill a vector, few states.

    Measured with AVX-512 and two threads, time of steps / time of chunks in three runs:

    ======== ======== ======== =========
    channels states   forward  backward
    ======== ======== ======== =========
    64       128      1.1-2.4  2.7-5.2
    64       32       1.1-1.2  2.3-2.5
    32       16       0.7      1.3-1.5
    16       64       0.9-1.0  2.2-2.3
    16       16       0.7-0.9  1.7-1.8
    8        64       0.4-0.5  1.0-1.2
    4        64       0.2-0.3  0.7-0.8
    ======== ======== ======== =========
    """
    p, n = inputs.x.shape[3], inputs.B.shape[3]
    return p < 8 if gradient else p < 16 or n < 32


def backward(
    grad_y: Tensor,
    grad_final_state: Tensor | None,
    inputs: SsdInputs,
    options: SsdOptions,
    offsets: Tensor | None,
) -> tuple[Tensor | None, ...]:
    """Return one gradient per entry of `SsdInputs`; the states are computed again."""
    x, dt, B, C, D = inputs.x, inputs.dt, inputs.B, inputs.C, inputs.D
    (_, _, h, p), n, dtype = x.shape, B.shape[3], compute_dtype(x)
    raw, step = step_sizes(dt, inputs.dt_bias, options)
    tensors, mode = _channels(inputs, step, offsets), ScanMode(reverse=options.reverse)
    y, state, checkpoints = selective_scan_forward(
        *tensors, mode=mode, save_for_backward=True, offsets=offsets
    )
    assert checkpoints is not None
    grad_x, grad_step, grad_A, grad_B, grad_C, grad_D, grad_z, _, grad_state = (
        selective_scan_backward(
            grad_y.to(dtype).reshape(y.shape),
            None if grad_final_state is None else grad_final_state.reshape(state.shape),
            *tensors,
            checkpoints,
            mode=mode,
            need_initial_state_grad=True,
            offsets=offsets,
        )
    )
    assert grad_x is not None
    assert grad_step is not None
    assert grad_A is not None
    assert grad_B is not None
    assert grad_C is not None
    assert grad_state is not None
    if grad_D is not None and D is not None:
        grad_D = grad_D.view(h, p) if D.dim() == 2 else grad_D.view(h, p).sum(1)
    grad_raw = through_limits(grad_step.view(x.shape).sum(3), raw, options)
    return (
        grad_x.view(x.shape).to(x.dtype),
        grad_raw.to(dt.dtype).contiguous(),
        grad_A.view(h, p * n).sum(1),
        grad_B.to(B.dtype),
        grad_C.to(C.dtype),
        grad_D,
        None if grad_z is None else grad_z.view(x.shape).to(x.dtype),
        None if inputs.dt_bias is None else grad_raw.sum((0, 1)),
        _by_heads(grad_state, inputs),
    )


def _by_heads(state: Tensor, inputs: SsdInputs) -> Tensor:
    """(sequences, h p, n) -> (sequences, h, p, n)."""
    return state.view(state.shape[0], *inputs.x.shape[2:], inputs.B.shape[3])


def _channels(inputs: SsdInputs, step: Tensor, offsets: Tensor | None) -> ScanTensors:
    """The arguments of a selective scan of h p channels, in the compute type."""
    x, _, A, B, C, D, z, _, initial_state = inputs
    (b, l, h, p), n, dtype = x.shape, B.shape[3], compute_dtype(x)
    rows, sequences = (b, l, h * p), b if offsets is None else offsets.shape[0] - 1
    if D is not None:
        D = D.flatten() if D.dim() == 2 else D.repeat_interleave(p)
    return (
        x.to(dtype).reshape(rows),
        step.to(dtype).repeat_interleave(p, dim=2),
        A.repeat_interleave(p).unsqueeze(1).expand(h * p, n),  # stride 0 says that it is shared
        B.to(dtype),
        C.to(dtype),
        D,
        None if z is None else z.to(dtype).reshape(rows),
        None,
        None if initial_state is None else initial_state.reshape(sequences, h * p, n),
    )
