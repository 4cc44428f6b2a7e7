"""Arguments of the stand-ins, drawn by Hypothesis, in the original's layout and in float64."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

from ssm_kernels.compat.selective_scan import ScanTensors


@dataclass(frozen=True)
class ScanCase:
    b: int
    d: int
    l: int
    n: int
    groups: tuple[int, int]  # of B and C: 0 constant, 1 (b, n, l), more (b, g, n, l)
    is_complex: bool
    optional: tuple[bool, bool, bool]  # D, z, delta_bias
    delta_softplus: bool
    transposed: bool
    seed: int

    def tensors(self, dtype: torch.dtype = torch.float64) -> ScanTensors:
        torch.manual_seed(self.seed)
        d, n = self.d, self.n
        wide = torch.float64 if dtype is torch.float64 else torch.float32
        A = -torch.rand(d, n, dtype=wide) - 0.1
        if self.is_complex:
            A = torch.complex(A, torch.randn(d, n, dtype=wide))
        has_D, has_z, has_bias = self.optional
        return ScanTensors(
            self._activation(dtype),
            self._activation(dtype).abs(),
            A,
            self._projection(self.groups[0], A, dtype),
            self._projection(self.groups[1], A, dtype),
            torch.randn(d, dtype=wide) if has_D else None,
            self._activation(dtype) if has_z else None,
            torch.rand(d, dtype=wide) if has_bias else None,
        )

    def _activation(self, dtype: torch.dtype) -> Tensor:
        if self.transposed:
            return torch.randn(self.b, self.l, self.d).to(dtype).transpose(1, 2)
        return torch.randn(self.b, self.d, self.l).to(dtype)

    def _projection(self, groups: int, A: Tensor, dtype: torch.dtype) -> Tensor:
        if groups == 0:
            return torch.randn(self.d, self.n, dtype=A.dtype)
        middle = () if groups == 1 else (groups,)
        steps = 2 * self.l if self.is_complex else self.l
        return torch.randn(self.b, *middle, self.n, steps).to(dtype)


@st.composite
def scan_cases(draw: st.DrawFn) -> ScanCase:
    d = draw(st.sampled_from([1, 2, 4, 6]))
    groups = st.sampled_from([0, 1] + [g for g in (2, 3) if d % g == 0])
    return ScanCase(
        draw(st.integers(1, 3)),
        d,
        draw(st.sampled_from([1, 2, 5, 17])),
        draw(st.sampled_from([1, 3, 4])),
        (draw(groups), draw(groups)),
        draw(st.booleans()),
        (draw(st.booleans()), draw(st.booleans()), draw(st.booleans())),
        draw(st.booleans()),
        draw(st.booleans()),
        draw(st.integers(0, 2**16)),
    )


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def slow_scan(tensors: ScanTensors, delta_softplus: bool) -> tuple[Tensor, Tensor]:
    """Return y and the last state, entry by entry from the equations."""
    u, delta, A, B, C, D, z, bias = tensors
    b, d, l = u.shape
    step = delta if bias is None else delta + bias[:, None]
    step = torch.log1p(torch.exp(step)) if delta_softplus else step

    def at(M: Tensor, i: int, t: int) -> Tensor:
        """The (b, n) row of channel i at step t."""
        if M.dim() == 2:
            return M[i].expand(b, -1)
        M = M.unsqueeze(1) if M.dim() == 3 else M
        row = M[:, i // (d // M.shape[1])]
        if A.is_complex():
            return torch.complex(row[..., 2 * t], row[..., 2 * t + 1])
        return row[..., t]

    outputs, states = [], []
    for i in range(d):
        h = A.new_zeros(b, A.shape[1])
        row = []
        for t in range(l):
            now = step[:, i, t, None]
            h = torch.exp(now * A[i]) * h + now * at(B, i, t) * u[:, i, t, None]
            s = (at(C, i, t) * h).sum(-1)
            row.append(2 * s.real if A.is_complex() else s)
        outputs.append(torch.stack(row, -1))
        states.append(h)
    y = torch.stack(outputs, 1)
    y = y if D is None else y + D[:, None] * u
    return y if z is None else y * silu(z), torch.stack(states, 1)


def leaves(tensors: tuple[Tensor | None, ...]) -> list[Tensor | None]:
    return [None if x is None else x.detach().requires_grad_() for x in tensors]


def gradients(y: Tensor, found: list[Tensor | None], cotangent: Tensor) -> list[Tensor]:
    given = [leaf for leaf in found if leaf is not None]
    return list(torch.autograd.grad(y, given, cotangent, allow_unused=True))


def close(got: Tensor, expected: Tensor, tolerance: float = 1e-9) -> None:
    assert got.shape == expected.shape
    torch.testing.assert_close(
        got, expected.to(got.dtype), rtol=tolerance, atol=tolerance, check_device=False
    )
