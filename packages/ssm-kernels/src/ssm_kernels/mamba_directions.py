"""The inner part of a Mamba mixer in several directions: one kernel where no gradient is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.compiler import is_compiling
from torch.nn import functional as F

from . import native
from .backends import Backend, choose_backend
from .causal_conv1d import MAX_WIDTH, causal_conv1d
from .checks import check_tensors, wrong_shape
from .errors import ArgumentError
from .library import needs_dispatcher, torch_func_is_active
from .selective_scan import selective_scan

NAME = "mamba_directions"
_TYPES = (torch.float32, torch.float64)


class MambaParameters(NamedTuple):
    """The parameters of one direction, in the shapes of Mamba's checkpoints."""

    conv_weight: Tensor
    """(d, 1, k), k from 1 to 8: taps of the convolution, the last one for the present step."""
    conv_bias: Tensor | None
    """(d,)"""
    x_proj: Tensor
    """(R + 2 n, d): rows of the step size, of B, of C."""
    dt_proj: Tensor
    """(d, R)"""
    dt_bias: Tensor | None
    """(d,)"""
    A_log: Tensor
    """(d, n): A = -exp(A_log), unit of A: 1/step."""
    D: Tensor | None
    """(d,)"""


class _Inputs(NamedTuple):
    x: Tensor
    z: Tensor


def mamba_directions(
    x: Tensor,
    z: Tensor,
    parameters: Sequence[MambaParameters],
    reverse: Sequence[bool],
    *,
    backend: Backend | str = Backend.AUTO,
) -> Tensor:
    """Convolve, project and scan x in each direction; return the sum gated by silu(z), (b, l, d).

    A direction is u = silu(causal_conv1d(x)), (dt, B, C) = x_proj u, and the selective scan of u
    with the steps softplus(dt_proj dt + dt_bias), A, B, C and the skip D.

    Where `fuses_mamba_directions`, a single kernel does it all. Elsewhere it is done with
    `causal_conv1d` and `selective_scan`, with all that these can do: gradients, CUDA, tracing.

    Args:
        x: (b, l, d), any strides: float32, float64, bfloat16 or float16.
        z: (b, l, d) gate, any strides.
        parameters: of each direction; the sizes k, R and n are those of all.
        reverse: which directions run from the last step to the first.
        backend: of the operators, see `Backend`; the single kernel is one of "cpu".

    Raises:
        ShapeError, DTypeError, DeviceError, ArgumentError: an argument does not fit; the message
            names it.
        BackendError: a backend named explicitly cannot run; "auto" never raises this.

    Cost: O(b l d (R + n + k)) time per direction. The single kernel keeps O(b l d) numbers per
    direction until it is done.
    Source: Gu & Dao 2023, arXiv:2312.00752, Algorithm 2; Zhu et al. 2024, arXiv:2401.09417,
    Algorithm 1 (two directions).
    """
    _check(x, z, parameters, reverse)
    chosen = choose_backend(NAME, backend, x.device)
    if chosen is Backend.CPU and fuses_mamba_directions(x, z, parameters):
        return native.mamba_directions(x, z, parameters, reverse)
    y = _one_direction(x, z, parameters[0], reverse[0], chosen)
    for own, way in zip(parameters[1:], reverse[1:], strict=True):
        y = y + _one_direction(x, z, own, way, chosen)
    return y


def fuses_mamba_directions(x: Tensor, z: Tensor, parameters: Sequence[MambaParameters]) -> bool:
    """Whether `mamba_directions` is a single kernel for these tensors.

    It is in an eager call on the CPU that records no gradient, with all tensors in float32 or all
    in float64, and without autocast.
    """
    tensors: tuple[Any, ...] = (x, z, *chain.from_iterable(parameters))
    if is_compiling() or torch_func_is_active() or needs_dispatcher(tensors):
        return False
    dtype = x.dtype
    if dtype not in _TYPES or any(t is not None and t.dtype is not dtype for t in tensors):
        return False
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        return False
    return (
        forward_ad._current_level < 0
        and not torch.is_autocast_enabled("cpu")
        and len(parameters) <= native.MOST_DIRECTIONS
        and choose_backend(NAME, Backend.AUTO, x.device) is Backend.CPU
        and native.has_mamba_directions(x)
    )


def _one_direction(
    x: Tensor, z: Tensor, own: MambaParameters, reverse: bool, backend: Backend
) -> Tensor:
    weight = own.conv_weight.squeeze(1)
    u = causal_conv1d(x, weight, own.conv_bias, "silu", reverse=reverse, backend=backend)
    assert isinstance(u, Tensor)
    rank, n = own.dt_proj.shape[1], own.A_log.shape[1]
    dt, B, C = F.linear(u, own.x_proj).split_with_sizes([rank, n, n], dim=-1)
    delta, A = F.linear(dt, own.dt_proj), -torch.exp(own.A_log)
    options: dict[str, Any] = {"reverse": reverse, "backend": backend}
    y = selective_scan(u, delta, A, B, C, own.D, z, own.dt_bias, delta_softplus=True, **options)
    assert isinstance(y, Tensor)
    return y


def _check(
    x: Tensor, z: Tensor, parameters: Sequence[MambaParameters], reverse: Sequence[bool]
) -> None:
    check_tensors(NAME, _Inputs(x, z), required=2)
    if x.dim() != 3:
        raise wrong_shape(NAME, "x", x, "3 axes (b, l, d)")
    if z.shape != x.shape:
        raise wrong_shape(NAME, "z", z, f"that of x, (b, l, d) = {tuple(x.shape)}")
    if not parameters or len(parameters) != len(reverse):
        raise ArgumentError(
            f"{NAME}: {len(parameters)} directions have parameters and reverse has "
            f"{len(reverse)} entries, expected one for each of at least one direction"
        )
    d = x.shape[2]
    first = parameters[0]
    for own in parameters:
        check_tensors(NAME, own._replace(conv_bias=None, dt_bias=None, D=None), required=0)
        _check_sizes(own, first, d)


def _check_sizes(own: MambaParameters, first: MambaParameters, d: int) -> None:
    k, n = first.conv_weight.shape[-1], first.A_log.shape[-1]
    rank = first.dt_proj.shape[-1]
    if not 1 <= k <= MAX_WIDTH:
        raise wrong_shape(NAME, "conv_weight", own.conv_weight, "(d, 1, k) with k from 1 to 8")
    for name, axes, shape in (
        ("conv_weight", "(d, 1, k)", (d, 1, k)),
        ("conv_bias", "(d,)", (d,)),
        ("x_proj", "(R + 2 n, d)", (rank + 2 * n, d)),
        ("dt_proj", "(d, R)", (d, rank)),
        ("dt_bias", "(d,)", (d,)),
        ("A_log", "(d, n)", (d, n)),
        ("D", "(d,)", (d,)),
    ):
        tensor = getattr(own, name)
        if tensor is not None and tensor.shape != shape:
            raise wrong_shape(NAME, name, tensor, f"{axes} = {shape}")
