"""Gradients of the CUDA scans of several directions, simulated, against float64 reference loops."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from native_scan_cases import compute_type, error
from torch import Tensor

from ssm_kernels import selective_scan_directions
from ssm_kernels.selective_scan_directions_autograd import DIRECTIONS

pytestmark = pytest.mark.usefixtures("simulated")


def gradients(
    tensors: dict[str, Tensor | None], grad_y: Tensor, **options: object
) -> dict[str, Tensor]:
    leaves = {n: t.detach().requires_grad_() for n, t in tensors.items() if t is not None}
    y = selective_scan_directions(**leaves, delta_softplus=True, **options)
    found = torch.autograd.grad(y, list(leaves.values()), grad_y.to(y.dtype))
    return dict(zip(leaves, found, strict=True))


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    image=st.tuples(st.sampled_from([1, 3, 7]), st.sampled_from([1, 5, 8])),
    d=st.sampled_from([3, 8, 20]),
    n=st.sampled_from([1, 2, 9]),
    names=st.lists(st.sampled_from(sorted(DIRECTIONS)), min_size=1, max_size=6),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    optional=st.booleans(),
    own_u=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_gradients_of_any_directions(
    image: tuple[int, int],
    d: int,
    n: int,
    names: list[str],
    dtype: torch.dtype,
    optional: bool,
    own_u: bool,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    b, l, k, wide = 2, image[0] * image[1], len(names), compute_type(dtype)
    tensors = {
        "u": torch.randn((b, l, k, d) if own_u else (b, l, d)).to(dtype),
        "delta": (torch.randn(b, l, k, d) - 1).to(dtype),
        "A": -torch.rand(k, d, n, dtype=wide) * n,
        "B": torch.randn(b, l, k, n).to(dtype),
        "C": torch.randn(b, l, k, n).to(dtype),
        "D": torch.randn(k, d, dtype=wide) if optional else None,
        "z": torch.randn(b, l, d).to(dtype) if optional else None,
        "delta_bias": torch.randn(k, d, dtype=wide) if optional else None,
    }
    grad_y = torch.randn(b, l, d).to(dtype)
    options = {"directions": names, "columns": image[1]}
    got = gradients(tensors, grad_y, backend="cpu", **options)
    exact = {name: None if t is None else t.double() for name, t in tensors.items()}
    expected = gradients(exact, grad_y, backend="reference", **options)
    for name, value in expected.items():
        stored = got[name].dtype
        assert stored == tensors[name].dtype
        # Rounded once: what directions share is added up before that.
        limit = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 6e-3}[stored]
        assert error(got[name], value) <= limit, name
