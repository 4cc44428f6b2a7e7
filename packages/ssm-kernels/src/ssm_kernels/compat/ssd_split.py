"""mamba_ssm.ops.triton.ssd_combined: the inside of a Mamba-2 block as one call."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import ArgumentError
from .conv_interface import causal_conv1d_fn
from .layernorm_gated import rmsnorm_fn
from .ssd_combined import mamba_chunk_scan_combined


def mamba_split_conv1d_scan_combined(
    zxbcdt: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor | None,
    dt_bias: Tensor,
    A: Tensor,
    D: Tensor,
    chunk_size: int,
    initial_states: Tensor | None = None,
    seq_idx: Tensor | None = None,
    dt_limit: tuple[float, float] = (0.0, math.inf),
    return_final_states: bool = False,
    activation: str | None = "silu",
    rmsnorm_weight: Tensor | None = None,
    rmsnorm_eps: float = 1e-6,
    outproj_weight: Tensor | None = None,
    outproj_bias: Tensor | None = None,
    headdim: int | None = None,
    ngroups: int = 1,
    norm_before_gate: bool = True,
) -> Tensor | tuple[Tensor, Tensor]:
    """Split, convolve, scan, norm, gate and project: a Mamba-2 block after its input projection.

    Args:
        zxbcdt: (b, l, 2m + 2hp + 2gn + h): the two halves of a gated MLP of m channels (0 or more),
            the gate z, then x, B and C, which are convolved, then dt.
        conv1d_weight: (hp + 2gn, k).
        conv1d_bias: (hp + 2gn,) or None.
        dt_bias: (h,); the step size is softplus(dt + dt_bias), confined to dt_limit.
        A: (h,), negative.
        D: (h, p), or (h,) with headdim given.
        chunk_size: accepted; the kernels choose their own.
        initial_states: (b, h, p, n); None means 0.
        seq_idx: (b, l) id of the sequence each step belongs to; None: one per row.
        dt_limit: least and largest step size.
        return_final_states: also return the states after the last step, (b, h, p, n).
        activation: of the convolution: None, "silu" or "swish".
        rmsnorm_weight: (hp,) of the gated RMS norm over groups of hp/g channels; None: only gate.
        rmsnorm_eps: added to the mean square.
        outproj_weight: (o, m + hp); None: no projection.
        outproj_bias: (o,) or None.
        headdim: p, where D does not tell.
        ngroups: g.
        norm_before_gate: gate after the norm instead of before.

    Returns:
        (b, l, o), or (b, l, m + hp) without projection; with the states if asked for.

    Raises:
        NotImplementedError: another activation.
        ShapeError, DTypeError, DeviceError, ArgumentError: from the operators.

    Cost: O(b l (hp (n + k) + o (m + hp))).
    Source: Dao & Gu 2024, arXiv:2405.21060, Section 7.
    """
    h, p = D.shape[0], D.shape[1] if D.dim() == 2 else headdim
    if p is None:
        raise ArgumentError(
            "mamba_split_conv1d_scan_combined: D has shape (h,), which does not tell the channels "
            "per head: pass headdim"
        )
    d, gn = h * p, (conv1d_weight.shape[0] - h * p) // 2
    m = (zxbcdt.shape[-1] - 2 * d - 2 * gn - h) // 2
    mlp, z, xBC, dt = zxbcdt.split([2 * m, d, d + 2 * gn, h], dim=-1)
    convolved = causal_conv1d_fn(
        *(xBC.transpose(1, 2), conv1d_weight, conv1d_bias, seq_idx), activation=activation
    )
    assert isinstance(convolved, Tensor)
    x, B, C = convolved.transpose(1, 2).split([d, gn, gn], dim=-1)
    z_heads = z.unflatten(-1, (h, p)) if rmsnorm_weight is None else None
    y, states = mamba_chunk_scan_combined(
        *(x.unflatten(-1, (h, p)), dt, A, B.unflatten(-1, (ngroups, -1))),
        C.unflatten(-1, (ngroups, -1)),
        chunk_size,
        D=D,
        z=z_heads,
        dt_bias=dt_bias,
        initial_states=initial_states,
        seq_idx=seq_idx,
        dt_softplus=True,
        dt_limit=dt_limit,
        return_final_states=True,
    )
    y = y.flatten(-2)
    if rmsnorm_weight is not None:
        y = rmsnorm_fn(y, rmsnorm_weight, None, z, rmsnorm_eps, d // ngroups, norm_before_gate)
    if m > 0:
        gate, value = mlp.chunk(2, dim=-1)
        y = torch.cat([F.silu(gate) * value, y], dim=-1)
    if outproj_weight is not None:
        y = F.linear(y, outproj_weight, outproj_bias)
    return (y, states) if return_final_states else y
