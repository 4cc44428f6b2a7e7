"""mamba_ssm.ops.triton.ssd_combined: both passes alone, for Functions of other projects."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .norms import wide_dtype
from .raw import gradients, leaves_of, stored
from .ssd_combined import mamba_chunk_scan_combined

Gradients = tuple[Tensor | None, ...]


# The arguments and their order are the original's, here and below.
@torch.no_grad()
def _mamba_chunk_scan_combined_fwd(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    chunk_size: int,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    initial_states: Tensor | None = None,
    seq_idx: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, math.inf),
) -> tuple[Tensor | None, ...]:
    """Compute `mamba_chunk_scan_combined` without recording a gradient; arguments as there.

    Returns:
        y (b, l, h, p); y before the gate, or None without z; three times None, where the original
        has what its own kernels go on with; the states after the last step (b, h, p, n); and with
        cu_seqlens those after each sequence.
    """
    results = mamba_chunk_scan_combined(
        *(x, dt, A, B, C, chunk_size, D),
        dt_bias=dt_bias,
        initial_states=initial_states,
        seq_idx=seq_idx,
        dt_softplus=dt_softplus,
        dt_limit=dt_limit,
        return_final_states=True,
        cu_seqlens=cu_seqlens,
        return_varlen_states=cu_seqlens is not None,
    )
    y, *states = results
    if z is None:
        return (y, None, None, None, None, *states)
    wide = wide_dtype(y)
    gated = (y.to(wide) * F.silu(z.to(wide))).to(y.dtype)
    return (gated, y, None, None, None, *states)


def _mamba_chunk_scan_combined_bwd(
    dout: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    out: Tensor | None,
    chunk_size: int,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    initial_states: Tensor | None = None,
    dfinal_states: Tensor | None = None,
    seq_idx: Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, math.inf),
    dx: Tensor | None = None,
    ddt: Tensor | None = None,
    dB: Tensor | None = None,
    dC: Tensor | None = None,
    dz: Tensor | None = None,
    recompute_output: bool = False,
) -> Gradients:
    """Return the gradients of x, dt, A, B, C, D, z, dt_bias and initial_states, None for None.

    Args:
        dout: (b, l, h, p) gradient of y.
        out: the y of the forward pass; not read.
        dfinal_states: (b, h, p, n) gradient of the states after the last step, or None.
        dx, ddt, dB, dC, dz: tensors to write these gradients to, or None.
        recompute_output: append y.

        The others as in `mamba_chunk_scan_combined`.

    Cost: that of both passes, as the forward pass runs again.
    """
    given: dict[str, Any] = {"x": x, "dt": dt, "A": A, "B": B, "C": C, "D": D, "z": z}
    leaves = leaves_of({**given, "dt_bias": dt_bias, "initial_states": initial_states})
    with torch.enable_grad():
        y, states = mamba_chunk_scan_combined(
            **leaves,  # type: ignore[arg-type]  # None for what may be None alone
            chunk_size=chunk_size,
            seq_idx=seq_idx,
            dt_softplus=dt_softplus,
            dt_limit=dt_limit,
            return_final_states=True,
        )
        outputs, seeds = [y], [dout.to(y.dtype)]
        if dfinal_states is not None:
            outputs, seeds = [y, states], [*seeds, dfinal_states.to(states.dtype)]
    found = gradients(outputs, seeds, leaves)
    for name, place in {"x": dx, "dt": ddt, "B": dB, "C": dC, "z": dz}.items():
        found[name] = stored(found[name], place)
    return (*found.values(), y.detach()) if recompute_output else tuple(found.values())
