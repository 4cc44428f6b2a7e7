"""Random arguments of every layout and type, and comparison of values and gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

BACKENDS = ("reference", "cpu")
examples = settings(max_examples=40, deadline=None)  # decorator of every property
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)

# Largest error allowed, relative to the largest expected value or 1. The sums are float32 (float64
# for float64); for the 16-bit types the rounding of stored results dominates: 2**-9 and 2**-12.
TOLERANCE = {
    torch.float32: 1e-5,
    torch.float64: 1e-11,
    torch.bfloat16: 2e-2,
    torch.float16: 3e-3,
}

LAYOUTS: dict[str, tuple[Callable[..., tuple[int, ...]], Callable[..., Tensor]]] = {
    # name: (shape of the storage, view of the storage with the wanted shape); d is the last axis.
    "contiguous": (lambda *s: s, lambda t, *s: t),
    "transposed": (lambda *s: (s[0], *s[2:], s[1]), lambda t, *s: t.movedim(-1, 1)),
    "sliced": (
        lambda b, l, *s: (b, 2 * l + 1, *s[:-1], s[-1] + 3),
        lambda t, b, l, *s: t[:, 1::2, ..., 2 : 2 + s[-1]],
    ),
    "expanded": (lambda b, l, *s: (b, 1, *s), lambda t, *s: t.expand(s)),
    "expanded batch": (lambda b, *s: (1, *s), lambda t, *s: t.expand(s)),
    "chunk": (
        lambda *s: (*s[:-1], 2 * s[-1]),
        lambda t, *s: t[..., s[-1] :],
    ),
    "time first": (lambda b, l, *s: (l, b, *s), lambda t, *s: t.transpose(0, 1)),
}
layouts = st.sampled_from(sorted(LAYOUTS))


@dataclass
class Leaf:
    """A tensor that gradients are taken of, and the view of it that the operator is given."""

    storage: Tensor
    view: Callable[[Tensor], Tensor]

    def widened(self) -> Leaf:
        """Return the same values in double precision, for the oracle."""
        wide = torch.complex128 if self.storage.is_complex() else torch.float64
        return Leaf(self.storage.detach().to(wide).requires_grad_(), self.view)


def leaf(
    values: Callable[..., Tensor], shape: Sequence[int], dtype: torch.dtype, layout: str
) -> Leaf:
    """Make a leaf whose view has `shape`, with `values(*storage shape)` converted to `dtype`."""
    storage_shape, view = LAYOUTS[layout]
    storage = values(*storage_shape(*shape)).to(dtype).requires_grad_()
    made = Leaf(storage, lambda t: view(t, *shape))
    assert made.view(storage).shape == tuple(shape)
    return made


def parameter(values: Tensor, dtype: torch.dtype) -> Leaf:
    """Make a contiguous leaf."""
    return Leaf(values.to(dtype).requires_grad_(), lambda t: t)


def run(
    operator: Callable[..., tuple[Tensor, Tensor]],
    leaves: Mapping[str, Leaf],
    cotangents: Sequence[Tensor],
    **options: object,
) -> dict[str, Tensor]:
    """Return y, the final state and the gradient of every leaf, by name."""
    views = {name: leaf.view(leaf.storage) for name, leaf in leaves.items()}
    outputs = operator(**views, return_final_state=True, **options)
    pairs = [
        (o, g.to(o.dtype)) for o, g in zip(outputs, cotangents, strict=True) if o.requires_grad
    ]
    gradients = torch.autograd.grad(
        [o for o, _ in pairs],
        [leaf.storage for leaf in leaves.values()],
        [g for _, g in pairs],
        allow_unused=True,
        materialize_grads=True,
    )
    named = {f"gradient of {name}": g for name, g in zip(leaves, gradients, strict=True)}
    return {"y": outputs[0].detach(), "final state": outputs[1].detach(), **named}


def gradient_slack(dtype: torch.dtype, is_complex: bool = False) -> float:
    """How far cancelling gradients of random cases are let off; found by thousands of cases."""
    if dtype.itemsize < 4:
        return 8.0
    return 50.0 if is_complex else 10.0


def assert_all_close(
    got: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    tolerance: float,
    slack: float = 1.0,
) -> None:
    """Compare by name: the error stays below `tolerance` times the largest expected value, or 1.

    Gradients may be off by `slack` times as much: those that are sums over steps (also the
    gradient of an expanded tensor, whose terms are rounded to its type before they are added)
    cancel, and then the rounding of large terms is compared with a small result.
    """
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        factor = slack if name.startswith("gradient") else 1.0
        assert_close(got[name], value, factor * tolerance, name)


def assert_close(got: Tensor, expected: Tensor, tolerance: float, name: str = "result") -> None:
    """Compare one tensor; see `assert_all_close`."""
    assert got.shape == expected.shape, f"{name}: {tuple(got.shape)} != {tuple(expected.shape)}"
    if expected.numel() == 0:
        return
    wide = torch.complex128 if expected.is_complex() else torch.float64
    got, expected = got.to(wide), expected.to(wide)
    scale = max(1.0, expected.abs().max().item())
    error = (got - expected).abs().max().item() / scale
    assert error <= tolerance, f"{name}: relative error {error:.2e} > {tolerance:.0e}"


def assert_same_special_values(got: Tensor, expected: Tensor, name: str) -> None:
    """Check that NaN, +Inf and -Inf stand at the same places."""
    for test in (torch.isnan, torch.isposinf, torch.isneginf):
        assert torch.equal(test(got), test(expected)), f"{name}: {test.__name__} differs"
