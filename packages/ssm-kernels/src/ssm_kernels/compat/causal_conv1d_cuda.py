"""The extension causal_conv1d_cuda: positional arguments, in each of the orders that it has had.

The number of arguments tells the version: those of 1.5 and later write into tensors they are given
and return None, older ones return new tensors.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .conv_functions import (
    causal_conv1d_bwd_function,
    causal_conv1d_fwd_function,
    causal_conv1d_update_function,
)


def causal_conv1d_fwd(*arguments: Any) -> Tensor | None:
    """Convolve: (x, weight, bias, seq_idx, initial_states, out, final_states_out, silu) -> None.

    Older orders, which return the result: without `out` (1.2 to 1.4), (x, weight, bias, seq_idx,
    silu) (1.1), (x, weight, bias, silu) (1.0). Meaning of the arguments: `causal_conv1d_fn`.

    Raises:
        TypeError: another number of arguments.
    """
    *tensors, silu = arguments
    count = len(arguments)
    if count == 8:
        x, weight, bias, seq_idx, initial_states, out, final_states_out = tensors
        kept = (x, weight, bias, seq_idx, initial_states, final_states_out, silu)
        out.copy_(causal_conv1d_fwd_function(*kept))
        return None
    if count not in (4, 5, 7):
        raise _wrong_number("causal_conv1d_fwd", count, "8, 7, 5 or 4")
    padded = [*_padded(tensors, 6), silu]
    return causal_conv1d_fwd_function(*padded)


def causal_conv1d_bwd(*arguments: Any) -> tuple[Tensor | None, ...] | None:
    """Return or write the gradients of `causal_conv1d_fwd`.

    (x, weight, bias, dout, seq_idx, initial_states, dfinal_states, dx, dweight, dbias,
    dinitial_states, silu) -> None writes to the four tensors before the last.

    Older orders, which return the gradients: (x, weight, bias, dout, seq_idx, initial_states,
    dfinal_states, dx, return_dinitial_states, silu) (1.2 to 1.4), (x, weight, bias, dout, seq_idx,
    dx, silu) (1.1), (x, weight, bias, dout, dx, silu) (1.0).

    Raises:
        TypeError: another number of arguments.
    """
    count, silu = len(arguments), arguments[-1]
    if count == 12:
        *inputs, dx, dweight, dbias, dinitial, _ = arguments
        given = [*inputs, dx, dinitial is not None, silu]
        found = causal_conv1d_bwd_function(*given)
        for gradient, out in zip(found[1:], (dweight, dbias, dinitial), strict=True):
            if out is not None and gradient is not None:
                out.copy_(gradient)
        return None
    if count == 10:
        return causal_conv1d_bwd_function(*arguments)
    if count not in (6, 7):
        raise _wrong_number("causal_conv1d_bwd", count, "12, 10, 7 or 6")
    *inputs, dx, _ = arguments
    padded = [*_padded(inputs, 7), dx, False, silu]
    return causal_conv1d_bwd_function(*padded)[:3]


def causal_conv1d_update(*arguments: Any) -> Tensor | None:
    """Convolve new samples: (x, conv_state, weight, bias, out, silu, cache_seqlens,
    conv_state_indices) -> None.

    Older orders, which return the result: without `out`, and without the last or the last two.
    Meaning of the arguments: `causal_conv1d_update` of the interface.

    Raises:
        TypeError: another number of arguments.
    """
    count = len(arguments)
    if count == 8:
        x, conv_state, weight, bias, out, *options = arguments
        out.copy_(causal_conv1d_update_function(x, conv_state, weight, bias, *options))
        return None
    if count not in (5, 6, 7):
        raise _wrong_number("causal_conv1d_update", count, "8, 7, 6 or 5")
    return causal_conv1d_update_function(*_padded(arguments, 7))


def _padded(arguments: Any, length: int) -> list[Any]:
    return [*arguments, *[None] * (length - len(arguments))]


def _wrong_number(function: str, count: int, expected: str) -> TypeError:
    return TypeError(
        f"causal_conv1d_cuda.{function} got {count} arguments, expected {expected} (by the version "
        "of causal-conv1d that the caller was written for); call causal_conv1d_fn instead"
    )
