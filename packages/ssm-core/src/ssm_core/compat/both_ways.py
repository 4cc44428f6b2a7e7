"""Both directions of bimamba "v1": one convolution and one projection, scanned forward and back.

Source: hustvl/Vim, the first of its two bidirectional mixers (Zhu et al. 2024, arXiv:2401.09417).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from ssm_core.layers.selective import SelectiveDirection
from ssm_core.norm import at_least_float32
from ssm_core.shapes import Inner
from ssm_kernels import causal_conv1d, selective_scan


def run_both_ways(direction: SelectiveDirection, A_b_log: Tensor, x: Inner, z: Inner) -> Inner:
    """Return scan(x; A) + reversed scan(x; A_b) of one causally convolved x (b, l, E).

    Step sizes, B, C, the skip D x and the gate silu(z) are those of the forward direction in both
    scans, so the skip counts twice.
    """
    conv1d, x_proj, dt_proj, A_log, D = direction
    x = cast(Tensor, causal_conv1d(x, conv1d.weight.squeeze(1), conv1d.bias, activation="silu"))
    dt_rank, d_state = dt_proj.weight.shape[1], A_log.shape[1]
    dt, B, C = x_proj(x).split_with_sizes([dt_rank, d_state, d_state], dim=-1)
    # without the bias: it enters inside the scan, in float32
    delta = F.linear(dt, dt_proj.weight)

    def scan(log: Tensor, reverse: bool) -> Tensor:
        A = -torch.exp(at_least_float32(log))
        y = selective_scan(x, delta, A, B, C, D, z, dt_proj.bias, True, reverse=reverse)
        return cast(Tensor, y)

    return scan(A_log, False) + scan(A_b_log, True)
