"""Operators of this package as ONNX `Scan`s. Imports onnxscript, which makes graphs of this source.

Loop bodies are written out: the exporter leaves out the functions that a function calls.
"""

import onnxscript
from onnxscript import FLOAT
from onnxscript import opset18 as op

_DOMAIN = onnxscript.values.Opset("ssm_core", 1)


@onnxscript.script(_DOMAIN, default_opset=op)
def recurrence(rate, A, drive, B, C, initial_state) -> tuple[FLOAT[...], FLOAT[...]]:
    """See `ssm_core.export.recurrence`; the axis of steps is the second one."""

    @onnxscript.graph()
    def one_step(h, rate_t, drive_t, B_t, C_t):
        after = op.Exp(rate_t * A) * h + drive_t * B_t
        y_t = op.ReduceSum(C_t * after, op.Constant(value_ints=[-1]), keepdims=0)
        return after, y_t

    h, y = op.Scan(
        initial_state,
        rate,
        drive,
        B,
        C,
        body=one_step,
        num_scan_inputs=4,
        scan_input_axes=[1, 1, 1, 1],
        scan_output_axes=[1],
    )
    return y, h


@onnxscript.script(_DOMAIN, default_opset=op)
def diagonal_systems(u, initial_state, decay, turn, B, C) -> tuple[FLOAT[...], FLOAT[...]]:
    """See `ssm_core.export.systems`; the axis of steps is the third one."""

    @onnxscript.graph()
    def one_step(x, u_t):
        first, second = op.Split(x, num_outputs=2, axis=-1)
        swapped = op.Concat(second, first, axis=-1)
        after = decay * x + turn * swapped + op.MatMul(u_t, B)
        y_t = op.MatMul(after, C)
        return after, y_t

    x, y = op.Scan(
        initial_state,
        u,
        body=one_step,
        num_scan_inputs=1,
        scan_input_axes=[2],
        scan_output_axes=[2],
    )
    return y, x


@onnxscript.script(_DOMAIN, default_opset=op)
def low_rank_systems(u, initial_state, decay, turn, B, C, W, U) -> tuple[FLOAT[...], FLOAT[...]]:
    """The same with the low-rank part."""

    @onnxscript.graph()
    def one_step(x, u_t):
        first, second = op.Split(x, num_outputs=2, axis=-1)
        swapped = op.Concat(second, first, axis=-1)
        low_rank = op.MatMul(op.MatMul(x, W), U)
        after = decay * x + turn * swapped - low_rank + op.MatMul(u_t, B)
        y_t = op.MatMul(after, C)
        return after, y_t

    x, y = op.Scan(
        initial_state,
        u,
        body=one_step,
        num_scan_inputs=1,
        scan_input_axes=[2],
        scan_output_axes=[2],
    )
    return y, x


def linear_systems(u, initial_state, decay, turn, B, C, W=None, U=None):
    """One or the other."""
    if W is None:
        return diagonal_systems(u, initial_state, decay, turn, B, C)
    return low_rank_systems(u, initial_state, decay, turn, B, C, W, U)
