"""Arguments for the compiled scan, and the scan and its gradients as a plain loop in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ssm_kernels import native


@dataclass
class Case:
    """The arguments of one scan; see `native.selective_scan_forward`."""

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None = None
    z: Tensor | None = None
    delta_bias: Tensor | None = None
    initial_state: Tensor | None = None

    def tensors(self) -> tuple[Tensor | None, ...]:
        return tuple(getattr(self, field.name) for field in fields(self))


@dataclass
class Mode:
    delta_softplus: bool = True
    reverse: bool = False
    columns: int = 0

    def native(self) -> native.ScanMode:
        return native.ScanMode(self.delta_softplus, self.reverse, self.columns)


# Relative to the largest value, for steps and decays of any size; see also the test of ordinary
# inputs. The 16-bit types round stored results to 2^-9 and 2^-12.
VALUE_ERROR = {
    torch.float32: 1e-6,
    torch.float64: 2e-14,
    torch.bfloat16: 4e-3,
    torch.float16: 5e-4,
}
GRADIENT_ERROR = {**VALUE_ERROR, torch.float32: 2e-6, torch.float64: 5e-14}


def compute_type(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def widest(dtype: torch.dtype) -> torch.dtype:
    return torch.complex128 if dtype.is_complex else torch.float64


def make_case(
    sizes: tuple[int, int, int, int],
    *,
    groups: int = 1,
    dtype: torch.dtype = torch.float32,
    constant: str = "",
    optional: bool = True,
    complex_A: bool = False,
) -> Case:
    """Random arguments for (b, l, d, n); `constant` names those of B and C without a time axis."""
    b, l, d, n = sizes
    wide = compute_type(dtype)
    state = wide.to_complex() if complex_A else wide
    projected = state if complex_A else dtype

    def coefficient(name: str) -> Tensor:
        if name in constant:
            return torch.randn(d, n, dtype=state)
        return torch.randn(b, l, groups, n, dtype=widest(projected)).to(projected)

    def rates() -> Tensor:
        real = -(torch.rand(d, n, dtype=wide) * n)
        return torch.complex(real, torch.randn(d, n, dtype=wide) * 3) if complex_A else real

    case = Case(
        u=torch.randn(b, l, d, dtype=torch.float64).to(dtype),
        delta=(torch.randn(b, l, d, dtype=torch.float64) * 0.5).to(dtype),
        A=rates(),
        B=coefficient("B"),
        C=coefficient("C"),
    )
    if not optional:
        return case
    return replace(
        case,
        D=torch.randn(d, dtype=wide),
        z=torch.randn(b, l, d, dtype=torch.float64).to(dtype),
        delta_bias=torch.randn(d, dtype=wide) - 2,
        initial_state=torch.randn(b, d, n, dtype=state),
    )


def expected_scan(case: Case, mode: Mode) -> tuple[Tensor, Tensor]:
    """(y, final state) in float64 or complex128, one step after the other."""
    wide = [None if t is None else t.to(widest(t.dtype)) for t in case.tensors()]
    u, delta, A, B, C, D, z, bias, state = wide
    b, l, d = u.shape
    delta = delta if bias is None else delta + bias
    delta = F.softplus(delta) if mode.delta_softplus else delta

    def per_channel(coefficient: Tensor) -> Tensor:  # (b, l, d, n)
        if coefficient.dim() == 2:
            return coefficient.expand(b, l, *coefficient.shape)
        groups = coefficient.shape[2]
        return coefficient.repeat_interleave(d // groups, 2)

    B, C = per_channel(B), per_channel(C)
    state = A.new_zeros(b, *A.shape) if state is None else state
    outputs = [u.new_zeros(b, d)] * l
    for t in reversed(range(l)) if mode.reverse else range(l):
        decay = torch.exp(delta[:, t, :, None] * A)
        state = decay * state + (delta[:, t] * u[:, t])[..., None] * B[:, t]
        y = (C[:, t] * state).sum(-1)
        y = 2 * y.real if y.is_complex() else y
        y = y if D is None else y + D * u[:, t]
        outputs[t] = y if z is None else y * F.silu(z[:, t])
    return (torch.stack(outputs, 1) if l else u.new_zeros(b, 0, d)), state


def native_scan(
    case: Case, mode: Mode, offsets: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    return native.selective_scan_forward(
        *case.tensors(), mode=mode.native(), save_for_backward=True, offsets=offsets
    )


def native_gradients(
    case: Case,
    mode: Mode,
    grad_y: Tensor,
    grad_state: Tensor | None,
    offsets: Tensor | None = None,
) -> dict[str, Tensor | None]:
    checkpoints = native_scan(case, mode, offsets)[2]
    gradients = native.selective_scan_backward(
        grad_y,
        grad_state,
        *case.tensors(),
        checkpoints,
        mode=mode.native(),
        need_initial_state_grad=case.initial_state is not None,
        offsets=offsets,
    )
    return dict(zip((field.name for field in fields(case)), gradients, strict=True))


def expected_gradients(
    case: Case, mode: Mode, grad_y: Tensor, grad_state: Tensor | None
) -> dict[str, Tensor | None]:
    """The same by automatic differentiation of the loop, in float64 or complex128."""
    leaves = [
        None if t is None else t.detach().to(widest(t.dtype)).requires_grad_()
        for t in case.tensors()
    ]
    y, state = expected_scan(Case(*leaves), mode)
    total = (y * grad_y.double()).sum()
    if grad_state is not None:
        total = total + (state * grad_state.to(state.dtype).conj()).real.sum()
    present = [leaf for leaf in leaves if leaf is not None]
    total = total + sum(0 * leaf.real.sum() for leaf in present)  # every leaf takes part
    gradients = iter(torch.autograd.grad(total, present))
    names = (field.name for field in fields(case))
    return {
        n: None if leaf is None else next(gradients) for n, leaf in zip(names, leaves, strict=True)
    }


def error(got: Tensor, expected: Tensor) -> float:
    """Largest difference relative to the largest expected value, or to 1 where all are smaller."""
    assert got.shape == expected.shape
    if expected.numel() == 0:
        return 0.0
    scale = max(1.0, expected.abs().max().item())
    return (got.to(expected.dtype) - expected).abs().max().item() / scale


def check(case: Case, mode: Mode, *, with_state: bool = True, times: float = 1.0) -> None:
    """Compare y, the final state and all gradients with the loop.

    `times` scales the limits of float32 and float64; those of the 16-bit types are for rounding.
    """

    def limit(of: dict[torch.dtype, float], stored: torch.dtype) -> float:
        real = stored.to_real()
        return of[real] * (times if real.itemsize > 2 else 1)

    dtype = case.u.dtype
    y, state, _ = native_scan(case, mode)
    expected_y, expected_state = expected_scan(case, mode)
    assert y.dtype == dtype
    assert y.is_contiguous()
    assert error(y, expected_y) <= limit(VALUE_ERROR, dtype)
    assert error(state, expected_state) <= limit(GRADIENT_ERROR, state.dtype)
    grad_y = torch.randn(y.shape).to(dtype)
    grad_state = torch.randn(state.shape, dtype=state.dtype) if with_state else None
    got = native_gradients(case, mode, grad_y, grad_state)
    for name, expected in expected_gradients(case, mode, grad_y, grad_state).items():
        if expected is None:
            assert got[name] is None
            continue
        assert got[name].dtype == getattr(case, name).dtype
        allowed = limit(GRADIENT_ERROR, got[name].dtype)
        assert error(got[name], expected) <= allowed, f"gradient of {name}"


def channels_first(t: Tensor) -> Tensor:
    return t.movedim(1, -1).contiguous().movedim(-1, 1)


def every_second(t: Tensor) -> Tensor:
    wide = torch.randn(*t.shape[:-1], 2 * t.shape[-1]).to(t.dtype)
    wide[..., ::2] = t
    return wide[..., ::2]


def batch_last(t: Tensor) -> Tensor:
    return t.movedim(0, -1).contiguous().movedim(-1, 0)


LAYOUTS: list[Callable[[Tensor], Tensor]] = [channels_first, every_second, batch_last]
