"""The extension selective_scan_cuda_core of VMamba: no gate, real A, as positional arguments."""

from __future__ import annotations

from torch import Tensor

from . import raw_scan
from .selective_scan import ScanTensors


def fwd(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D_: Tensor | None,
    delta_bias_: Tensor | None,
    delta_softplus: bool,
    nrows: int,
    /,
) -> list[Tensor]:
    """Return [y, x]: y (b, d, l) in the type of u; x[:, :, -1, 1::2] is the last state.

    `nrows`, rows per block of the CUDA kernel, is accepted. The others as in `selective_scan_fn`;
    no gradient is recorded.
    """
    tensors = ScanTensors(u, delta, A, B, C, D_, None, delta_bias_)
    return list(raw_scan.forward(tensors, delta_softplus))


def bwd(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D_: Tensor | None,
    delta_bias_: Tensor | None,
    dout: Tensor,
    x_: Tensor | None,
    delta_softplus: bool,
    nrows: int,
    /,
) -> list[Tensor | None]:
    """Return [du, ddelta, dA, dB, dC, dD, ddelta_bias] for the gradient `dout` (b, d, l) of y.

    `x_`, what `fwd` returned, is not read. The others as in `fwd`.
    """
    tensors = ScanTensors(u, delta, A, B, C, D_, None, delta_bias_)
    gradients, _ = raw_scan.backward(tensors, dout, delta_softplus)
    *others, _, dbias = gradients
    return [*others, dbias]
