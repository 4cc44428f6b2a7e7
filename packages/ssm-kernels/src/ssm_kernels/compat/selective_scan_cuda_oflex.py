"""The extension selective_scan_cuda_oflex of VMamba: the result may be wider than the input."""

from __future__ import annotations

from torch import Tensor

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
    delta_bias_: Tensor | None,
    delta_softplus: bool,
    nrows: int,
    out_float: bool,
    /,
) -> list[Tensor]:
    """Return [y, x]: y (b, d, l), float32 if `out_float`; x[:, :, -1, 1::2] is the last state.

    `delta` (and `delta_bias_`) may have d/r channels, each for r neighbours of u. `nrows`, rows per
    block of the CUDA kernel, is accepted. The others as in `selective_scan_fn`; no gradient is
    recorded.
    """
    tensors = _spread(ScanTensors(u, delta, A, B, C, D_, None, delta_bias_))
    if out_float:
        tensors = tensors._replace(u=u.to(wide_dtype(u)))
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

    `dout` may be float32 with narrower inputs. `x_`, what `fwd` returned, is not read. The others
    as in `fwd`.
    """
    tensors = _spread(ScanTensors(u, delta, A, B, C, D_, None, delta_bias_))
    wide = tensors._replace(u=u.to(dout.dtype))
    gradients, _ = raw_scan.backward(wide, dout, delta_softplus)
    du, ddelta, dA, dB, dC, dD, _, dbias = gradients
    ddelta, dbias = _gathered(ddelta, delta, 1), _gathered(dbias, delta_bias_, 0)
    return [_to(du, u), ddelta, dA, dB, dC, dD, dbias]


def _spread(tensors: ScanTensors) -> ScanTensors:
    """Repeat the step size for every channel of u."""
    d, delta, bias = tensors.u.shape[1], tensors.delta, tensors.delta_bias
    if delta.shape[1] == d:
        return tensors
    times = d // delta.shape[1]
    return tensors._replace(
        delta=delta.repeat_interleave(times, dim=1),
        delta_bias=None if bias is None else bias.repeat_interleave(times, dim=0),
    )


def _gathered(gradient: Tensor | None, like: Tensor | None, axis: int) -> Tensor | None:
    """Add up the gradients of the copies that `_spread` made."""
    if gradient is None or like is None or gradient.shape == like.shape:
        return gradient
    return gradient.unflatten(axis, (like.shape[axis], -1)).sum(axis + 1)


def _to(gradient: Tensor | None, like: Tensor) -> Tensor | None:
    return None if gradient is None else gradient.to(like.dtype)
