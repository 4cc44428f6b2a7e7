"""The short causal depthwise convolution of Mamba: checks and choice of a backend."""

from __future__ import annotations

from torch import Tensor

from .backends import Backend, choose_backend
from .causal_conv1d_autograd import NAME, ConvInputs, ConvOptions, conv_native
from .checks import check_tensors, count_sequences, wrong_shape
from .errors import ArgumentError
from .packed import Share, run_packed
from .reference import causal_conv1d_reference

MAX_WIDTH = 8
_SHARES = (Share.STEPS, Share.ALL, Share.ALL, Share.STATE)  # of ConvInputs


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    *,
    initial_state: Tensor | None = None,
    return_final_state: bool = False,
    reverse: bool = False,
    cu_seqlens: Tensor | None = None,
    backend: Backend | str = Backend.AUTO,
) -> Tensor | tuple[Tensor, Tensor]:
    """Convolve every channel with its own k taps: y[t] = act(bias + sum_j weight[j] x[t-(k-1)+j]).

    `weight[:, k-1]` multiplies the present sample, `weight[:, 0]` the oldest, as in a `Conv1d`.
    Reversed, the same taps look ahead: y[t] = act(bias + sum_j weight[j] x[t+(k-1)-j]).

    Args:
        x: (b, l, d) input: float32, float64, bfloat16 or float16, any strides.
        weight: (d, k) taps, k from 1 to 8.
        bias: (d,); None means 0.
        activation: None or "silu".
        initial_state: (b, d, k-1) samples just outside x on the side the taps look to, in time
            order: those before step 0, or with `reverse` those after step l-1. None means zeros.
        return_final_state: also return what continues this call: pass it as `initial_state` with
            the steps that follow (with `reverse`: the steps that precede). (b, d, k-1) in time
            order: the last k-1 samples, or with `reverse` the first k-1.
        reverse: look ahead instead of back.
        cu_seqlens: int32 or int64 offsets [0, ..., l] of sequences packed along the steps; b must
            be 1. Taps never reach into another sequence; states are then (sequences, d, k-1).
        backend: "auto", or an implementation that must run; see `Backend`.

    Returns:
        y (b, l, d) in the type of x, and with `return_final_state` the state. Sums and states are
        float32, or float64 if x is float64.

    Raises:
        ShapeError, DTypeError, DeviceError, ArgumentError: an argument does not fit; the message
            names it.
        BackendError: a backend named explicitly cannot run; "auto" never raises this.

    Cost: O(b l d k) time, no memory besides the result.
    Source: Gu & Dao 2023, arXiv:2312.00752, Fig. 3 (the convolution of the Mamba block).
    """
    inputs = ConvInputs(x, weight, bias, initial_state)
    check_tensors(NAME, inputs, required=2)
    n_states = x.shape[0] if cu_seqlens is None else count_sequences(NAME, cu_seqlens, x)
    _check_shapes(inputs, n_states)
    if activation is not None and activation != "silu":
        raise ArgumentError(f"{NAME}: activation is {activation!r}, expected None or 'silu'")
    options = ConvOptions(activation == "silu", bool(reverse))
    if choose_backend(NAME, backend, x.device) is Backend.REFERENCE:
        y, final_state = _conv_reference(inputs, cu_seqlens, options)
    else:
        y, final_state = conv_native(inputs, cu_seqlens, options)
    return (y, final_state) if return_final_state else y


def _check_shapes(inputs: ConvInputs, n_states: int) -> None:
    x, weight, bias, initial_state = inputs
    if x.dim() != 3:
        raise wrong_shape(NAME, "x", x, "3 axes (b, l, d)")
    b, _, d = x.shape
    if weight.dim() != 2 or weight.shape[0] != d or not 1 <= weight.shape[1] <= MAX_WIDTH:
        expected = f"(d, k) = ({d}, k) with k from 1 to {MAX_WIDTH}"
        raise wrong_shape(NAME, "weight", weight, expected)
    k = weight.shape[1]
    if bias is not None and bias.shape != (d,):
        raise wrong_shape(NAME, "bias", bias, f"(d,) = ({d},)")
    if initial_state is not None and initial_state.shape != (n_states, d, k - 1):
        first = "b" if n_states == b else "number of sequences"
        expected = f"({first}, d, k-1) = ({n_states}, {d}, {k - 1})"
        raise wrong_shape(NAME, "initial_state", initial_state, expected)


def _conv_reference(
    inputs: ConvInputs, cu_seqlens: Tensor | None, options: ConvOptions
) -> tuple[Tensor, Tensor]:
    def conv(
        x: Tensor, weight: Tensor, bias: Tensor | None, initial_state: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        result = causal_conv1d_reference(
            x,
            weight,
            bias,
            "silu" if options.silu else None,
            initial_state=initial_state,
            return_final_state=True,
            reverse=options.reverse,
        )
        assert isinstance(result, tuple)
        return result

    if cu_seqlens is None:
        return conv(*inputs)
    return run_packed(NAME, conv, cu_seqlens, inputs, _SHARES)
