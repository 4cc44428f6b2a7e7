"""Selective scans of the same steps in several directions, summed: both ways, or four routes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from .backends import Backend, choose_backend
from .checks import check_tensors, must_be_real, wrong_shape
from .errors import ArgumentError
from .reference import selective_scan_directions_reference
from .selective_scan_directions_autograd import (
    DIRECTIONS,
    NAME,
    DirectionInputs,
    scan_directions_native,
)

_MAY_BE_COMPLEX = frozenset({"A", "B", "C"})


def selective_scan_directions(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    *,
    directions: Sequence[str] = ("forward", "backward"),
    columns: int | None = None,
    backend: Backend | str = Backend.AUTO,
) -> Tensor:
    """Run one selective scan per direction over the same steps and add them up: y = sum_k y_k.

    Every tensor is in the order of the input, whatever the direction: nothing is flipped, permuted
    or copied. "forward" and "backward" follow the steps. Where the steps are the rows of an image
    laid end to end, "down" runs down one column after the other and "up" is its reverse, so that
    ("forward", "down", "backward", "up") are the four routes of VMamba.

    Args:
        u: (b, l, d) input that all k directions share, or (b, l, k, d) with one each.
        delta: (b, l, k, d) step sizes before bias and softplus.
        A: (k, d, n) real or complex.
        B, C: (b, l, k, n), or (b, l, k, g, n) with one row per group of d/g neighbouring channels;
            may be complex when A is.
        D: (k, d) skip; None means 0.
        z: (b, l, d) gate: the sum is multiplied by silu(z); None means no gate.
        delta_bias: (k, d) added to delta; None means 0.
        delta_softplus: pass the step size through a softplus.
        directions: k of "forward", "backward", "down", "up".
        columns: width of the image, needed for "down" and "up".
        backend: "auto", or an implementation that must run; see `Backend`.

    Returns:
        y (b, l, d) in the type of u, summed and gated in float32 (float64) before it is rounded.
        Each term is that of `selective_scan`.

    Raises:
        ShapeError, DTypeError, DeviceError, ArgumentError: an argument does not fit; the message
            names it.
        BackendError: a backend named explicitly cannot run; "auto" never raises this.

    Cost: that of k selective scans; no memory for permuted copies or for the k terms.
    Source: Zhu et al. 2024, arXiv:2401.09417, Algorithm 1 (two directions); Liu et al. 2024,
    arXiv:2401.10166, section 4.2 (four routes).
    """
    inputs = DirectionInputs(u, delta, A, B, C, D, z, delta_bias)
    check_tensors(NAME, inputs, required=5, may_be_complex=_MAY_BE_COMPLEX)
    for name in ("B", "C"):
        if getattr(inputs, name).is_complex() and not A.is_complex():
            raise must_be_real(NAME, name, getattr(inputs, name), f" like A ({A.dtype})")
    names = _checked_directions(directions)
    sizes = _checked_sizes(inputs, len(names))
    _check_columns(names, columns, sizes.l)
    chosen = choose_backend(NAME, backend, u.device)
    if chosen is Backend.REFERENCE:
        return selective_scan_directions_reference(
            *inputs, delta_softplus, directions=names, columns=columns
        )
    return scan_directions_native(inputs, bool(delta_softplus), names, columns or 0)


class _Sizes(NamedTuple):
    b: int
    l: int
    d: int
    k: int
    n: int


def _checked_directions(directions: Sequence[str]) -> tuple[str, ...]:
    names = (directions,) if isinstance(directions, str) else tuple(directions)
    if not names or any(name not in DIRECTIONS for name in names):
        known = ", ".join(repr(name) for name in DIRECTIONS)
        raise ArgumentError(
            f"{NAME}: directions is {directions!r}, expected one or more of {known}"
        )
    return names


def _check_columns(names: tuple[str, ...], columns: int | None, l: int) -> None:
    if columns is None:
        if any(DIRECTIONS[name].by_columns for name in names):
            raise ArgumentError(
                f"{NAME}: columns is None, expected the width of the image: "
                "'down' and 'up' follow its columns"
            )
    elif columns < 1 or l % columns:
        raise ArgumentError(f"{NAME}: columns is {columns}, expected a divisor of l = {l}")


def _checked_sizes(inputs: DirectionInputs, k: int) -> _Sizes:
    u, delta, A, B, C, D, z, delta_bias = inputs
    if u.dim() not in (3, 4) or (u.dim() == 4 and u.shape[2] != k):
        raise wrong_shape(NAME, "u", u, f"(b, l, d) or (b, l, k, d) with k = {k} directions")
    b, l, d = u.shape[0], u.shape[1], u.shape[-1]
    if delta.shape != (b, l, k, d):
        raise wrong_shape(NAME, "delta", delta, f"(b, l, k, d) = ({b}, {l}, {k}, {d})")
    if A.dim() != 3 or A.shape[:2] != (k, d):
        raise wrong_shape(NAME, "A", A, f"(k, d, n) = ({k}, {d}, n)")
    n = A.shape[2]
    for name, M in (("B", B), ("C", C)):
        groups = M.shape[3] if M.dim() == 5 else 1
        shape = (b, l, k, groups, n) if M.dim() == 5 else (b, l, k, n)
        if M.shape != shape or groups < 1 or d % groups:
            expected = (
                f"(b, l, k, n) = ({b}, {l}, {k}, {n}) or (b, l, k, g, n) with g dividing d = {d}"
            )
            raise wrong_shape(NAME, name, M, expected)
    for name, row in (("D", D), ("delta_bias", delta_bias)):
        if row is not None and row.shape != (k, d):
            raise wrong_shape(NAME, name, row, f"(k, d) = ({k}, {d})")
    if z is not None and z.shape != (b, l, d):
        raise wrong_shape(NAME, "z", z, f"(b, l, d) = ({b}, {l}, {d})")
    return _Sizes(b, l, d, k, n)
