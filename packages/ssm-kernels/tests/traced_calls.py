"""Calls of every differentiable operator for the tests of its ways through PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import conv_cases
import diagonal_cases
import pytest
import scan_cases
import ssd_cases
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ssm_kernels import causal_conv1d, diagonal_scan, selective_scan, ssd_scan

OFFSETS = torch.tensor([0, 3, 3, 37])


@dataclass(frozen=True)
class Call:
    """A call of an operator by keyword, with tensors that require gradients."""

    operator: Callable[..., tuple[Tensor, Tensor]]
    tensors: dict[str, Tensor]
    options: dict[str, object]
    batched: frozenset[str]  # tensors whose first axis is the batch

    def __call__(self, **tensors: Tensor) -> tuple[Tensor, Tensor]:
        return self.operator(**{**self.tensors, **tensors}, **self.options, return_final_state=True)

    def loss(self, tensors: dict[str, Tensor]) -> Tensor:
        """A number that depends on both results, and not linearly."""
        y, state = (torch.view_as_real(x) if x.is_complex() else x for x in self(**tensors))
        return y.sin().sum() + state.cos().sum()

    def fresh(self) -> dict[str, Tensor]:
        """New leaves with the same values."""
        return {k: x.detach().clone().requires_grad_() for k, x in self.tensors.items()}

    def gradients(self, loss: Callable[[dict[str, Tensor]], Tensor]) -> dict[str, Tensor]:
        leaves = self.fresh()
        found = torch.autograd.grad(loss(leaves), list(leaves.values()))
        return dict(zip(leaves, found, strict=True))


def scan_call(case: scan_cases.Case, dtype: torch.dtype = torch.float64, **options: object) -> Call:
    tensors = {k: x.view(x.storage).detach() for k, x in case.leaves(dtype).items()}
    batched = frozenset(k for k, x in tensors.items() if x.dim() > 2)
    return Call(selective_scan, tensors, {**case.options(), "backend": "cpu", **options}, batched)


def conv_call(case: conv_cases.Case, dtype: torch.dtype = torch.float64, **options: object) -> Call:
    tensors = {k: x.view(x.storage).detach() for k, x in case.leaves(dtype).items()}
    options = {**case.options(), "backend": "cpu", **options}
    return Call(causal_conv1d, tensors, options, frozenset({"x", "initial_state"}))


def diagonal_call(
    case: diagonal_cases.Case, dtype: torch.dtype = torch.float64, **options: object
) -> Call:
    tensors = {k: x.view(x.storage).detach() for k, x in case.leaves(dtype).items()}
    options = {"reverse": case.reverse, "backend": "cpu", **options}
    batched = frozenset({"u", "initial_state", *(["a"] if case.own[0] else [])})
    return Call(diagonal_scan, tensors, options, batched & tensors.keys())


def ssd_call(case: ssd_cases.Case, dtype: torch.dtype = torch.float64, **options: object) -> Call:
    tensors = {k: x.view(x.storage).detach() for k, x in case.leaves(dtype).items()}
    batched = frozenset(k for k, x in tensors.items() if x.dim() > 2)
    return Call(ssd_scan, tensors, {**case.options(), "backend": "cpu", **options}, batched)


def packed(call: Call) -> Call:
    """Lay the steps of the first sequence out as several sequences."""
    n = OFFSETS.numel() - 1
    tensors = {
        k: (x[:1].expand(n, *x.shape[1:]).clone() if k == "initial_state" else x[:1])
        if k in call.batched
        else x
        for k, x in call.tensors.items()
    }
    options = {**call.options, "cu_seqlens": OFFSETS}
    return replace(call, tensors=tensors, options=options, batched=frozenset())


_SCAN, _CONV = scan_call(scan_cases.EVERYTHING), conv_call(conv_cases.EVERYTHING)
_DIAGONAL = diagonal_call(diagonal_cases.EVERYTHING)
_SSD = ssd_call(ssd_cases.EVERYTHING, chunk_size=16)
CALLS = {
    "scan": _SCAN,
    "complex scan": scan_call(replace(scan_cases.EVERYTHING, is_complex=True)),
    "constant B, few options": scan_call(
        replace(scan_cases.EVERYTHING, groups=(0, 1), skip=False, gate=False, bias=False)
    ),
    "packed scan": packed(_SCAN),
    "conv": _CONV,
    "plain conv": conv_call(replace(conv_cases.EVERYTHING, bias=False, carry=False, silu=False)),
    "packed conv": packed(_CONV),
    "diagonal": _DIAGONAL,
    "complex diagonal, constant a": diagonal_call(
        replace(diagonal_cases.EVERYTHING, own=diagonal_cases.CONSTANT), torch.complex128
    ),
    "packed diagonal": packed(_DIAGONAL),
    "ssd": _SSD,
    "plain ssd": ssd_call(
        replace(ssd_cases.EVERYTHING, skip=0, gate=False, bias=False, limited=False, reverse=True)
    ),
    "packed ssd": packed(_SSD),
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
batched_calls = pytest.mark.parametrize(
    "call",
    [call for call in CALLS.values() if call.batched],
    ids=[name for name, call in CALLS.items() if call.batched],
)


class Watch(TorchDispatchMode):
    """Sees every operator pass by; with one active, the dispatcher must be used."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func.namespace == "ssm_kernels":
            self.seen.add(func._opname)
        return func(*args, **(kwargs or {}))
