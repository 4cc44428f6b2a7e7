"""What the mixers of transformers call, on our operators: names and arguments are transformers'.

transformers keeps the steps last, (b, d, l), for the convolution and the scan of Mamba; our
operators take any strides, so a transposed view is all that lies between.
"""

from __future__ import annotations

import math

from torch import Tensor

from .. import causal_conv1d as conv1d
from .. import causal_conv1d_update as conv1d_update
from .. import selective_scan, selective_state_update, ssd_scan

SILU = ("silu", "swish")


def causal_conv1d_fn(
    hidden_states: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
) -> Tensor:
    """The convolution of whole sequences (b, d, l), zeros before the first step."""
    y = conv1d(hidden_states.transpose(1, 2), weight, bias, _own(activation))
    assert isinstance(y, Tensor)
    return _activate(y, activation).transpose(1, 2)


def causal_conv1d_update(
    hidden_states: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
) -> Tensor:
    """The convolution of new samples (b, d, l), the state (b, d, s) in place."""
    y = conv1d_update(hidden_states.transpose(1, 2), conv_state, weight, bias, _own(activation))
    return _activate(y, activation).transpose(1, 2)


def _own(activation: str | None) -> str | None:
    return "silu" if activation in SILU else None


def _activate(y: Tensor, activation: str | None) -> Tensor:
    if activation is None or activation in SILU:
        return y
    from transformers.activations import ACT2FN

    activated: Tensor = ACT2FN[activation](y)
    return activated


def mamba_selective_scan(
    hidden_states: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    use_mambapy: bool = False,
    use_associative_scan: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """The scan of Mamba: hidden_states, dt, z (b, d, l); B, C (b, n, l); always from a zero state.

    The last two arguments choose between transformers' own ways to compute it.
    """
    u, dt, B, C = (x.transpose(1, 2) for x in (hidden_states, dt, B, C))
    gate = None if z is None else z.transpose(1, 2)
    y, state = selective_scan(
        *(u, dt, A, B, C, D, gate, delta_bias), delta_softplus, return_final_state=True
    )
    y = y.transpose(1, 2)
    return (y, state) if return_last_state else y


def mamba_selective_state_update(
    state: Tensor,
    hidden_states: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    z: Tensor | None = None,
) -> Tensor:
    """One step of the scan, the state in place: (b, d, n) of Mamba or (b, h, p, n) of Mamba-2."""
    return selective_state_update(state, hidden_states, dt, A, B, C, D, z, dt_bias, dt_softplus)


def mamba2_chunk_scan(
    hidden_states: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    chunk_size: int,
    D: Tensor | None = None,
    dt_bias: Tensor | None = None,
    initial_states: Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, math.inf),
    return_final_states: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """The scan of Mamba-2, (b, l, h, p); it has no use for the size of chunks."""
    y, state = ssd_scan(
        *(hidden_states, dt, A, B, C, D, None, dt_bias, dt_softplus),
        dt_limit=dt_limit,
        initial_state=initial_states,
        return_final_state=True,
    )
    return (y, state) if return_final_states else y
