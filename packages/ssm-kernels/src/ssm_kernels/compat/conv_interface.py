"""causal_conv1d.causal_conv1d_interface: the short convolution in the layout (b, d, l)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..backends import Backend
from ..causal_conv1d import causal_conv1d
from ..errors import ShapeError
from .errors import explain_axes
from .packing import end_to_end, packing_of, spread_states


def causal_conv1d_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    seq_idx: Tensor | str | None = None,
    initial_states: Tensor | str | None = None,
    return_final_states: bool = False,
    final_states_out: Tensor | None = None,
    activation: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Convolve every channel with its own k taps: y[t] = act(bias + sum_j weight[j] x[t-(k-1)+j]).

    Args:
        x: (b, d, l), any strides and float type.
        weight: (d, k) taps, k from 1 to 8; the last one is for the present sample.
        bias: (d,) or None.
        seq_idx: (b, l) id of the sequence each step belongs to; taps do not reach into another
            one, and y is 0 where the id is negative. The steps of a sequence lie side by side.
        initial_states: (b, d, k-1) samples before the first step; with seq_idx they precede the
            first sequence of each row.
        return_final_states: also return the last k-1 samples (b, d, k-1), in the type of x.
        final_states_out: (b, d, k-1), overwritten with them and returned.
        activation: None, "silu" or "swish" (the same). By position it may also be the fourth or
            fifth argument, as in causal-conv1d 1.0 and 1.1.

    Returns:
        y (b, d, l) in the type of x; channels-last if x is, else contiguous. With
        `return_final_states` a tuple with the final states.

    Raises:
        NotImplementedError: another activation, or return_final_states with seq_idx.
        ShapeError, DTypeError, DeviceError: from `ssm_kernels.causal_conv1d`; shapes in the message
            are (b, l, d).

    Cost: O(b l d k). Source: Gu & Dao 2023, arXiv:2312.00752, Fig. 3.
    """
    if isinstance(seq_idx, str):
        seq_idx, activation = None, seq_idx
    if isinstance(initial_states, str):
        initial_states, activation = None, initial_states
    y, final_states = convolve(
        *(x, weight, bias, seq_idx, initial_states, known_activation(activation), Backend.AUTO)
    )
    if not return_final_states:
        return y
    return y, _returned_states(final_states, x, seq_idx, final_states_out)


def causal_conv1d_ref(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    initial_states: Tensor | str | None = None,
    return_final_states: bool = False,
    final_states_out: Tensor | None = None,
    activation: str | None = None,
    seq_idx: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Compute what `causal_conv1d_fn` does in plain PyTorch, differentiable twice."""
    if isinstance(initial_states, str):
        initial_states, activation = None, initial_states
    y, final_states = convolve(
        *(x, weight, bias, seq_idx, initial_states, known_activation(activation), Backend.REFERENCE)
    )
    if not return_final_states:
        return y
    return y, _returned_states(final_states, x, seq_idx, final_states_out)


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    seq_idx: Tensor | None,
    initial_states: Tensor | None,
    activation: str | None,
    backend: Backend,
) -> tuple[Tensor, Tensor]:
    """Return y (b, d, l) and the final state (of each sequence with seq_idx)."""
    steps, cu_seqlens = x.transpose(1, 2), None
    if seq_idx is not None and seq_idx.numel() > 0:
        packing = packing_of(seq_idx)
        cu_seqlens, steps = packing.cu_seqlens, end_to_end(steps)
        initial_states = spread_states(initial_states, packing)
    try:
        y, final_state = causal_conv1d(
            *(steps, weight, bias, activation),
            initial_state=initial_states,
            return_final_state=True,
            cu_seqlens=cu_seqlens,
            backend=backend,
        )
    except ShapeError as error:
        explain_axes(error)
    y = y.reshape(x.shape[0], x.shape[2], x.shape[1]).transpose(1, 2)
    if seq_idx is not None:
        y = torch.where(seq_idx.unsqueeze(1) >= 0, y, 0.0)
    is_channels_last = x.stride(1) == 1 and x.shape[1] > 1
    return (y if is_channels_last else y.contiguous()), final_state


def known_activation(activation: str | None) -> str | None:
    """Return the activation as the operators name it.

    Raises:
        NotImplementedError: it is neither None, "silu" nor "swish".
    """
    if activation not in (None, "silu", "swish"):
        raise NotImplementedError(
            f"activation is {activation!r}, expected None, 'silu' or 'swish'; apply another one to "
            "the result"
        )
    return None if activation is None else "silu"


def _returned_states(
    final_states: Tensor, x: Tensor, seq_idx: Tensor | None, out: Tensor | None
) -> Tensor:
    if seq_idx is not None:
        raise NotImplementedError(
            "return_final_states is not supported with seq_idx (nor is it in causal-conv1d); use "
            "causal_conv1d.causal_conv1d_varlen.causal_conv1d_varlen_states"
        )
    return final_states.to(x.dtype) if out is None else out.copy_(final_states)
