"""The causal convolution of new samples only, with its state in place: checks and backend."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import native
from .backends import Backend, choose_backend
from .causal_conv1d import MAX_WIDTH
from .checks import check_tensors, not_a_tensor, wrong_shape
from .errors import ArgumentError, DeviceError, DTypeError
from .in_place import check_writable, mark_changed, refuse_gradients
from .library import Kernel, Operator
from .reference import causal_conv1d_update_reference

_NAME = "causal_conv1d_update"


class _Inputs(NamedTuple):
    x: Tensor
    conv_state: Tensor
    weight: Tensor
    bias: Tensor | None


def causal_conv1d_update(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    *,
    cache_seqlens: Tensor | None = None,
    backend: Backend | str = Backend.AUTO,
) -> Tensor:
    """Convolve new samples with those kept in `conv_state`, and put them into it, in place.

    y[t] = act(bias + sum_j weight[j] x[t-(k-1)+j]), where samples before x are those of the state:
    stored as they came in, before the convolution. With s = k - 1 the result and the state are
    those of `causal_conv1d` with `initial_state` and `return_final_state`.

    Args:
        x: (b, d) one new sample, or (b, l, d) several: float32, float64, bfloat16 or float16.
        conv_state: (b, d, s) with s >= k - 1, overwritten: any float type. The last s samples,
            oldest first: they move to the left and the new ones are appended. No entry may share
            memory with another or with x.
        weight: (d, k) taps, k from 1 to 8; `weight[:, k-1]` multiplies the present sample.
        bias: (d,); None means 0.
        activation: None or "silu".
        cache_seqlens: (b,) int32 or int64, how many samples of each sequence came before x, c. The
            state is then a ring: sample number t lies in slot t mod s, nothing moves, and the new
            ones overwrite the slots from c mod s on. (The slots of samples before the first, where
            c < k - 1, are read too: start from zeros.)
        backend: "auto", or an implementation that must run; see `Backend`.

    Returns:
        y, in shape and type of x. Sums are float32, or float64 if x or the state is.

    Raises:
        ShapeError, DTypeError, DeviceError: an argument does not fit; the message names it.
        ArgumentError: an unknown activation; the state is expanded; or a gradient would have to be
            recorded: this is an operator for inference, gradients come from `causal_conv1d` with
            `initial_state`.
        BackendError: a backend named explicitly cannot run; "auto" never raises this.

    Cost: O(b l d k + b d s) time, no memory besides y; a ring costs O(b l d k) time.
    Source: Gu & Dao 2023, arXiv:2312.00752, Fig. 3 (the convolution of the Mamba block).
    """
    inputs = _Inputs(x, conv_state, weight, bias)
    check_tensors(_NAME, inputs, required=3)
    _check_shapes(inputs)
    if cache_seqlens is not None:
        _check_counts(cache_seqlens, x)
    if activation is not None and activation != "silu":
        raise ArgumentError(f"{_NAME}: activation is {activation!r}, expected None or 'silu'")
    check_writable(_NAME, "conv_state", conv_state)
    refuse_gradients(_NAME, inputs, "causal_conv1d(..., initial_state=conv_state)")
    chosen = choose_backend(_NAME, backend, x.device)
    if chosen is Backend.REFERENCE:
        return causal_conv1d_update_reference(*inputs, activation, cache_seqlens=cache_seqlens)
    y: Tensor = _update(*inputs, cache_seqlens, activation == "silu")
    return y


def _check_shapes(inputs: _Inputs) -> None:
    x, conv_state, weight, bias = inputs
    shape = x.shape
    if not 2 <= len(shape) <= 3:
        raise wrong_shape(_NAME, "x", x, "2 axes (b, d) or 3 (b, l, d)")
    b, d = shape[0], shape[-1]
    taps = weight.shape
    if len(taps) != 2 or taps[0] != d or not 1 <= taps[1] <= MAX_WIDTH:
        expected = f"(d, k) = ({d}, k) with k from 1 to {MAX_WIDTH}"
        raise wrong_shape(_NAME, "weight", weight, expected)
    kept, k = conv_state.shape, taps[1]
    if len(kept) != 3 or kept[0] != b or kept[1] != d or kept[2] < k - 1:
        expected = f"(b, d, s) = ({b}, {d}, s) with s at least k-1 = {k - 1}"
        raise wrong_shape(_NAME, "conv_state", conv_state, expected)
    if bias is not None and bias.shape != (d,):
        raise wrong_shape(_NAME, "bias", bias, f"(d,) = ({d},)")


def _check_counts(cache_seqlens: object, x: Tensor) -> None:
    if not isinstance(cache_seqlens, Tensor):
        raise not_a_tensor(_NAME, "cache_seqlens", cache_seqlens)
    if cache_seqlens.dtype not in (torch.int32, torch.int64):
        raise DTypeError(
            f"{_NAME}: cache_seqlens has dtype {cache_seqlens.dtype}, expected int32 or int64"
        )
    if cache_seqlens.shape != x.shape[:1]:
        raise wrong_shape(_NAME, "cache_seqlens", cache_seqlens, f"(b,) = ({x.shape[0]},)")
    if cache_seqlens.device != x.device:
        raise DeviceError(
            f"{_NAME}: cache_seqlens is on {cache_seqlens.device}, expected {x.device} like x"
        )


def _launch(*arguments: Any) -> Any:
    *inputs, cache_seqlens, silu = arguments
    y = native.causal_conv1d_update(*inputs, silu=silu, cache_seqlens=cache_seqlens)
    mark_changed(inputs[1])
    return y


def _fake(x: Tensor, *_: Any) -> Any:
    return torch.empty_like(x)


_update = Operator(
    Kernel(
        _NAME,
        "(Tensor x, Tensor(a!) conv_state, Tensor weight, Tensor? bias, Tensor? cache_seqlens, "
        "bool silu) -> Tensor",
        _launch,
        _fake,
    )
)
