"""Arguments of the kernel generators of S4D and S4, drawn by Hypothesis."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import pi

import torch
from hypothesis import strategies as st
from kernel_cases import Leaf, parameter
from torch import Tensor

from ssm_kernels import cauchy, cauchy_reference, log_vandermonde, log_vandermonde_reference

COMPLEX = (torch.complex64, torch.complex128)
TOLERANCE = {torch.complex64: 1e-5, torch.complex128: 1e-11}
# Gradients sum over steps or nodes that cancel, with weights up to l or 1 / |z - w|.
SLACK = {torch.complex64: 50.0, torch.complex128: 50.0}


def randn(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(*shape, dtype=torch.complex128).to(dtype)


def poles(h: int, n: int) -> Tensor:
    """The diagonal of S4D-Lin times steps dt of different sizes, a little disturbed."""
    lin = -0.5 + 1j * pi * torch.arange(n, dtype=torch.float64)
    dt = torch.exp(torch.empty(h, 1, dtype=torch.float64).uniform_(-7, -2))
    return dt * (lin + 0.1j * torch.randn(h, n, dtype=torch.float64))


@dataclass(frozen=True)
class Case:
    """Everything that decides the arguments of one call; `long` is l or k."""

    leading: tuple[int, ...]
    h: int
    n: int
    long: int
    z_per_row: bool
    lazy: bool  # arguments with strides and a pending conjugation
    seed: int

    def _leaf(self, values: Tensor, dtype: torch.dtype) -> Leaf:
        if not self.lazy:
            return parameter(values, dtype)
        storage = values.conj().transpose(0, -1).to(dtype).resolve_conj().contiguous()
        return Leaf(storage.requires_grad_(), lambda t: t.conj().transpose(0, -1))

    def powers(self, dtype: torch.dtype) -> dict[str, Leaf]:
        torch.manual_seed(self.seed)
        v = randn(*self.leading, self.h, self.n, dtype=dtype)
        return {"v": self._leaf(v, dtype), "x": self._leaf(poles(self.h, self.n), dtype)}

    def fractions(self, dtype: torch.dtype) -> dict[str, Leaf]:
        """Nodes on the imaginary axis, as bilinear S4 has them, or a little off it."""
        torch.manual_seed(self.seed)
        v = randn(*self.leading, self.h, self.n, dtype=dtype)
        angle = (torch.rand(self.long, dtype=torch.float64) - 0.5) * 0.98 * pi
        z = 2j * torch.tan(angle)
        if self.z_per_row:
            z = z + 0.1 * torch.rand(self.h, self.long)
        w = poles(self.h, self.n) - 0.05
        return {"v": self._leaf(v, dtype), "z": self._leaf(z, dtype), "w": self._leaf(w, dtype)}


cases = st.builds(
    Case,
    leading=st.sampled_from([(), (1,), (2,), (5,), (0,), (2, 3)]),
    h=st.sampled_from([0, 1, 2, 3]),
    n=st.sampled_from([0, 1, 2, 3, 5, 17, 64, 65, 130]),
    long=st.sampled_from([0, 1, 2, 3, 15, 63, 64, 65, 130, 300, 513, 1030]),
    z_per_row=st.booleans(),
    lazy=st.booleans(),
    seed=st.integers(0, 2**16),
)
ORDINARY = Case((2,), 3, 5, 37, False, False, 1)


def run(
    operator: Callable[..., Tensor], leaves: Mapping[str, Leaf], **options: object
) -> dict[str, Tensor]:
    """Return the result and the gradient of every leaf, by name; the same cotangent every time."""
    result = operator(**{name: leaf.view(leaf.storage) for name, leaf in leaves.items()}, **options)
    torch.manual_seed(1)
    wide = torch.complex128 if result.is_complex() else torch.float64
    cotangent = torch.randn(result.shape, dtype=wide).to(result.dtype)
    gradients = torch.autograd.grad(
        result, [leaf.storage for leaf in leaves.values()], cotangent, materialize_grads=True
    )
    named = {f"gradient of {name}": g for name, g in zip(leaves, gradients, strict=True)}
    return {"result": result.detach(), **named}


def compare_powers(case: Case, dtype: torch.dtype, backend: str) -> None:
    """Compare values and gradients with the reference in double precision."""
    leaves = case.powers(dtype)
    wide = {name: leaf.widened() for name, leaf in leaves.items()}
    expected = run(log_vandermonde_reference, wide, l=case.long)
    got = run(log_vandermonde, leaves, l=case.long, backend=backend)
    assert got["result"].dtype is dtype.to_real()
    # the reference rounds large angles, those of each term by themselves; the kernels do not
    v = wide["v"].view(wide["v"].storage.detach())
    size = 2 * v.abs().sum(-1).max().item() if backend == "reference" and v.numel() else 0.0
    assert_all_close(got, expected, dtype, size)


def compare_fractions(case: Case, dtype: torch.dtype, backend: str) -> None:
    """Compare values and gradients with the reference in double precision."""
    leaves = case.fractions(dtype)
    wide = {name: leaf.widened() for name, leaf in leaves.items()}
    expected = run(cauchy_reference, wide)
    got = run(cauchy, leaves, backend=backend)
    assert got["result"].dtype is dtype
    v, z, w = (leaf.view(leaf.storage.detach()) for leaf in wide.values())
    distances = [(z.unsqueeze(-2) - p.unsqueeze(-1)).abs() for p in (w, w.conj())]
    terms = v.abs().unsqueeze(-1) * sum(1 / distance for distance in distances)
    size = terms.sum(-2).max().item() if terms.numel() else 0.0
    assert_all_close(got, expected, dtype, size)


def assert_all_close(
    got: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    dtype: torch.dtype,
    size: float = 0.0,
) -> None:
    """Errors are relative to the largest expected value, that of the result also to `size`.

    That is the size of the terms of its sum, which may cancel.
    """
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        tolerance = TOLERANCE[dtype] * (SLACK[dtype] if name != "result" else 1)
        assert got[name].shape == value.shape, name
        if value.numel() == 0:
            continue
        if name != "result":
            assert got[name].dtype is dtype
        scale = value.abs().max().clamp(max(size, 1e-300) if name == "result" else 1e-300)
        error = (got[name].to(value.dtype) - value).abs().max() / scale
        assert error <= tolerance, f"{name}: relative error {error:.2e} > {tolerance:.0e}"
