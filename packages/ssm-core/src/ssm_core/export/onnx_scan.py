"""`recurrence` as ONNX operators. Imports onnxscript, which reads this source to make a graph."""

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
