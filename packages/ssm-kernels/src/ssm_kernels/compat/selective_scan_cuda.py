"""The extension selective_scan_cuda of mamba_ssm: positional arguments, results in lists."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from . import raw_scan
from .norms import wide_dtype
from .selective_scan import ScanTensors


def fwd(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D_: Tensor | None,
    z_: Tensor | None,
    delta_bias_: Tensor | None,
    delta_softplus: bool,
    /,
) -> list[Tensor]:
    """Return [y, x], with a gate [y, x, y silu(z)]; x[:, :, -1, 1::2] is the last state.

    Arguments as in `selective_scan_fn`; no gradient is recorded.
    """
    y, x = raw_scan.forward(ScanTensors(u, delta, A, B, C, D_, None, delta_bias_), delta_softplus)
    return [y, x] if z_ is None else [y, x, _gated(y, z_)]


def bwd(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D_: Tensor | None,
    z_: Tensor | None,
    delta_bias_: Tensor | None,
    dout: Tensor,
    x_: Tensor | None,
    out_: Tensor | None,
    dz_: Tensor | None,
    delta_softplus: bool,
    recompute_out_z: bool,
    /,
) -> list[Tensor | None]:
    """Return the gradients [du, ddelta, dA, dB, dC, dD, ddelta_bias], then dz with a gate.

    Args:
        dout: (b, d, l) gradient of the gated y.
        x_: what `fwd` returned; not read.
        out_: the y of `fwd`; not read.
        dz_: (b, d, l) to write dz to, or None.
        recompute_out_z: append the gated y.

        The others as in `fwd`.
    """
    tensors = ScanTensors(u, delta, A, B, C, D_, z_, delta_bias_)
    gradients, y = raw_scan.backward(tensors, dout, delta_softplus)
    *others, dD, dz, dbias = gradients
    results = [*others, dD, dbias]
    if dz is not None:
        results.append(dz if dz_ is None else dz_.copy_(dz))
    if recompute_out_z:
        results.append(y)
    return results


def _gated(y: Tensor, z: Tensor) -> Tensor:
    with torch.no_grad():
        wide = wide_dtype(y)
        return (y.to(wide) * F.silu(z.to(wide))).to(y.dtype)
