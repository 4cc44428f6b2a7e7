"""Arguments for the compiled scan, and the scan and its gradients as a plain loop in float64."""

from __future__ import annotations

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


def compute_type(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def make_case(
    sizes: tuple[int, int, int, int],
    *,
    groups: int = 1,
    dtype: torch.dtype = torch.float32,
    constant: str = "",
    optional: bool = True,
) -> Case:
    """Random arguments for (b, l, d, n); `constant` names those of B and C without a time axis."""
    b, l, d, n = sizes
    wide = compute_type(dtype)

    def coefficient(name: str) -> Tensor:
        if name in constant:
            return torch.randn(d, n, dtype=wide)
        return torch.randn(b, l, groups, n, dtype=torch.float64).to(dtype)

    case = Case(
        u=torch.randn(b, l, d, dtype=torch.float64).to(dtype),
        delta=(torch.randn(b, l, d, dtype=torch.float64) * 0.5).to(dtype),
        A=-(torch.rand(d, n, dtype=wide) * n),
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
        initial_state=torch.randn(b, d, n, dtype=wide),
    )


def expected_scan(case: Case, mode: Mode) -> tuple[Tensor, Tensor]:
    """(y, final state) in float64, one step after the other."""
    wide = [None if t is None else t.double() for t in case.tensors()]
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
    state = u.new_zeros(b, *A.shape) if state is None else state
    outputs = [u.new_zeros(b, d)] * l
    for t in reversed(range(l)) if mode.reverse else range(l):
        decay = torch.exp(delta[:, t, :, None] * A)
        state = decay * state + (delta[:, t] * u[:, t])[..., None] * B[:, t]
        y = (C[:, t] * state).sum(-1)
        y = y if D is None else y + D * u[:, t]
        outputs[t] = y if z is None else y * F.silu(z[:, t])
    return (torch.stack(outputs, 1) if l else u.new_zeros(b, 0, d)), state


def native_scan(case: Case, mode: Mode) -> tuple[Tensor, Tensor, Tensor | None]:
    return native.selective_scan_forward(
        *case.tensors(),
        delta_softplus=mode.delta_softplus,
        reverse=mode.reverse,
        save_for_backward=True,
    )


def native_gradients(
    case: Case, mode: Mode, grad_y: Tensor, grad_state: Tensor | None
) -> dict[str, Tensor | None]:
    checkpoints = native_scan(case, mode)[2]
    gradients = native.selective_scan_backward(
        grad_y,
        grad_state,
        *case.tensors(),
        checkpoints,
        delta_softplus=mode.delta_softplus,
        reverse=mode.reverse,
        need_initial_state_grad=case.initial_state is not None,
    )
    return dict(zip((field.name for field in fields(case)), gradients, strict=True))


def expected_gradients(
    case: Case, mode: Mode, grad_y: Tensor, grad_state: Tensor | None
) -> dict[str, Tensor | None]:
    """The same by automatic differentiation of the loop, in float64."""
    leaves = [None if t is None else t.detach().double().requires_grad_() for t in case.tensors()]
    y, state = expected_scan(Case(*leaves), mode)
    total = (y * grad_y.double()).sum()
    if grad_state is not None:
        total = total + (state * grad_state.double()).sum()
    present = [leaf for leaf in leaves if leaf is not None]
    total = total + sum(0 * leaf.sum() for leaf in present)  # every leaf takes part
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
    return (got.double() - expected).abs().max().item() / scale
