"""One decode step of the selective scan, in place: checks and choice of a backend."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import native
from .backends import Backend, choose_backend
from .checks import check_tensors, must_be_real, wrong_shape
from .errors import DTypeError, ShapeError
from .in_place import check_writable, mark_changed, refuse_gradients
from .library import Kernel, Operator
from .native_state_update import StateUpdateInputs
from .reference import selective_state_update_reference

_NAME = "selective_state_update"
_MAY_BE_COMPLEX = frozenset({"state", "A", "B", "C"})


def selective_state_update(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    *,
    backend: Backend | str = Backend.AUTO,
) -> Tensor:
    """Advance `state` one step in place, h <- exp(dt A) h + dt B x; return y = C h + D x.

    `dt` is taken plus `dt_bias`, through a softplus if `dt_softplus`. With a gate, y is multiplied
    by silu(z), the skip D x included. With a complex A one state of each conjugate pair is stored
    and C h stands for 2 Re(C h). The result is that of `selective_scan` with one step.

    Shapes without heads (Mamba) and with heads of p channels (Mamba-2); strides are free, so what
    is equal along an axis may be expanded, such as A and dt over the channels of a head.

    Args:
        state: (b, d, n) or (b, h, p, n), overwritten: any float type; complex when A is. No entry
            may share memory with another or with another argument.
        x: (b, d) or (b, h, p) input: float32, float64, bfloat16 or float16.
        dt: as x, step size before bias and softplus.
        A: (d, n) or (h, p, n) diagonal of the state matrix, unit 1/step; real or complex.
        B: (b, n), or (b, g, n) with one row per group of d/g neighbouring channels or of h/g
            neighbouring heads; may be complex when A is. Unlike in `selective_scan` there is no
            constant form, whose shape (d, n) could not be told from (b, n): pass it expanded, as
            (b, d, n).
        C: like B, independently of it.
        D: (d,) or (h, p) skip; None means 0.
        z: as x, gate; None means no gate.
        dt_bias: as D, added to dt; None means 0.
        dt_softplus: pass the step size through a softplus.
        backend: "auto", or an implementation that must run; see `Backend`.

    Returns:
        y, in shape and type of x. Sums are float32, or float64 if the state or an activation (x,
        dt, z, B, C) is; y is taken from the state before it is rounded to its type.

    Raises:
        ShapeError, DTypeError, DeviceError: an argument does not fit; the message names it.
        ArgumentError: the state is expanded, or a gradient would have to be recorded: this is an
            operator for inference, gradients come from `selective_scan` with `initial_state`.
        BackendError: a backend named explicitly cannot run; "auto" never raises this.

    Cost: O(b d n) time, no memory besides y.
    Source: Gu & Dao 2023, arXiv:2312.00752, Eq. 2; heads: Dao & Gu 2024, arXiv:2405.21060.
    """
    inputs = StateUpdateInputs(state, x, dt, A, B, C, D, z, dt_bias)
    _check_types(inputs)
    _check_shapes(inputs)
    check_writable(_NAME, "state", state)
    refuse_gradients(_NAME, inputs, "selective_scan(..., initial_state=state)")
    chosen = choose_backend(_NAME, backend, x.device)
    if chosen is Backend.REFERENCE:
        return selective_state_update_reference(*inputs, dt_softplus)
    y: Tensor = _update(*inputs, bool(dt_softplus))
    return y


def _check_types(inputs: StateUpdateInputs) -> None:
    check_tensors(_NAME, inputs, required=6, may_be_complex=_MAY_BE_COMPLEX)
    state, _, _, A, B, C, *_ = inputs
    if A.is_complex():
        if not state.is_complex():
            raise DTypeError(
                f"{_NAME}: state has dtype {state.dtype}, expected a complex dtype "
                f"like A ({A.dtype})"
            )
    elif state.is_complex() or B.is_complex() or C.is_complex():
        for name in ("state", "B", "C"):
            tensor = getattr(inputs, name)
            if tensor.is_complex():
                raise must_be_real(_NAME, name, tensor, f" like A ({A.dtype})")


def _check_shapes(inputs: StateUpdateInputs) -> None:
    state, x, dt, A, B, C, D, z, dt_bias = inputs
    shape = state.shape
    if not 3 <= len(shape) <= 4:
        raise wrong_shape(_NAME, "state", state, "3 axes (b, d, n) or 4 (b, h, p, n)")
    b, heads, n = shape[0], shape[1], shape[-1]
    inner, axes = shape[:-1], "d" if len(shape) == 3 else "h, p"
    if x.shape != inner:
        raise _does_not_fit("x", x, f"(b, {axes})", inner)
    if dt.shape != inner:
        raise _does_not_fit("dt", dt, f"(b, {axes})", inner)
    if z is not None and z.shape != inner:
        raise _does_not_fit("z", z, f"(b, {axes})", inner)
    if A.shape != shape[1:]:
        raise _does_not_fit("A", A, f"({axes}, n)", shape[1:])
    channels = inner[1:]
    if D is not None and D.shape != channels:
        raise _does_not_fit("D", D, _tuple_of(axes), channels)
    if dt_bias is not None and dt_bias.shape != channels:
        raise _does_not_fit("dt_bias", dt_bias, _tuple_of(axes), channels)
    _check_projection("B", B, (b, heads, n), axes[0])
    _check_projection("C", C, (b, heads, n), axes[0])


def _check_projection(name: str, M: Tensor, sizes: tuple[int, int, int], axis: str) -> None:
    b, heads, n = sizes
    shape = M.shape
    if shape == (b, n):
        return
    if len(shape) == 3 and shape[0] == b and shape[2] == n and shape[1] > 0 == heads % shape[1]:
        return
    expected = f"(b, n) = ({b}, {n}) or (b, g, n) = ({b}, g, {n}) with g dividing {axis} = {heads}"
    raise wrong_shape(_NAME, name, M, expected)


def _tuple_of(axes: str) -> str:
    return f"({axes},)" if "," not in axes else f"({axes})"


def _does_not_fit(name: str, tensor: Tensor, axes: str, sizes: tuple[int, ...]) -> ShapeError:
    return wrong_shape(_NAME, name, tensor, f"{axes} = {tuple(sizes)} to fit the state")


def _launch(*arguments: Any) -> Any:
    inputs = StateUpdateInputs(*arguments[:-1])
    y = native.selective_state_update(inputs, dt_softplus=arguments[-1])
    mark_changed(inputs.state)
    return y


def _fake(state: Tensor, x: Tensor, *_: Any) -> Any:
    return torch.empty_like(x)


_update = Operator(
    Kernel(
        _NAME,
        "(Tensor(a!) state, Tensor x, Tensor dt, Tensor A, Tensor B, Tensor C, Tensor? D, "
        "Tensor? z, Tensor? dt_bias, bool dt_softplus) -> Tensor",
        _launch,
        _fake,
    )
)
