"""The specification itself, against sums that are written without a recurrence."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kernel_cases import assert_close, examples
from torch import Tensor
from torch.nn import functional as F

from ssm_kernels import causal_conv1d_reference, selective_scan_reference


def closed_form_scan(
    u: Tensor, step: Tensor, A: Tensor, B: Tensor, C: Tensor, initial_state: Tensor
) -> tuple[Tensor, Tensor]:
    """Sum every earlier input, decayed by exp(A (S_t - S_s)), S being the running sum of the steps.

    u, step (b, l, d); A (d, n); B, C (b, l, d, n); initial_state (b, d, n).
    """
    total = step.cumsum(1)
    age = total.unsqueeze(2) - total.unsqueeze(1)  # (b, t, s, d)
    past = torch.ones(u.shape[1], u.shape[1]).tril().bool()
    age = age.masked_fill(~past[None, :, :, None], 0)
    decay = torch.exp(age.unsqueeze(-1) * A) * past[None, :, :, None, None]
    h = torch.einsum("btsdn,bsdn->btdn", decay, (step * u).unsqueeze(-1) * B)
    h = h + torch.exp(total.unsqueeze(-1) * A) * initial_state.unsqueeze(1)
    y = (C * h).sum(-1)
    return (2 * y.real if y.is_complex() else y), h[:, -1]


@examples
@given(
    b=st.integers(1, 3),
    l=st.integers(1, 12),
    d=st.integers(1, 3),
    n=st.integers(1, 4),
    is_complex=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_selective_scan_is_the_closed_form(
    b: int, l: int, d: int, n: int, is_complex: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    state = torch.complex128 if is_complex else torch.float64
    A = -torch.rand(d, n, dtype=torch.float64).to(state)
    if is_complex:
        A = A + 1j * torch.randn(d, n, dtype=torch.float64)
    leaves = [
        torch.randn(b, l, d, dtype=torch.float64),
        torch.rand(b, l, d, dtype=torch.float64),
        A,
        torch.randn(b, l, n, dtype=state),
        torch.randn(b, l, n, dtype=state),
        torch.randn(b, d, n, dtype=state),
    ]
    leaves = [x.requires_grad_() for x in leaves]
    u, step, A, B, C, h0 = leaves

    got = selective_scan_reference(u, step, A, B, C, initial_state=h0, return_final_state=True)
    per_channel = [x.unsqueeze(2).expand(b, l, d, n) for x in (B, C)]
    expected = closed_form_scan(u, step, A, *per_channel, h0)

    cotangents = [torch.randn_like(x) for x in expected]
    for name, x, y in zip(("y", "state"), got, expected, strict=True):
        assert_close(x, y, 1e-12, name)
    for name, x, y in zip(
        ("u", "delta", "A", "B", "C", "initial_state"),
        torch.autograd.grad(got, leaves, cotangents),
        torch.autograd.grad(expected, leaves, cotangents),
        strict=True,
    ):
        assert_close(x, y, 1e-11, f"gradient of {name}")


def test_selective_scan_options_by_hand() -> None:
    """One channel, one state, two steps, every number written out."""
    u = torch.tensor([[[2.0], [3.0]]], dtype=torch.float64)
    delta = torch.tensor([[[0.5], [-1.0]]], dtype=torch.float64)
    A = torch.tensor([[-0.7]], dtype=torch.float64)
    B = torch.tensor([[0.3]], dtype=torch.float64)
    C = torch.tensor([[1.1]], dtype=torch.float64)
    D = torch.tensor([0.2], dtype=torch.float64)
    z = torch.tensor([[[1.5], [-0.5]]], dtype=torch.float64)
    bias = torch.tensor([0.25], dtype=torch.float64)

    s0, s1 = (torch.log1p(torch.exp(torch.tensor(x, dtype=torch.float64))) for x in (0.75, -0.75))
    h0 = s0 * 0.3 * 2.0
    h1 = torch.exp(s1 * -0.7) * h0 + s1 * 0.3 * 3.0
    gate = z / (1 + torch.exp(-z))
    expected = torch.stack([1.1 * h0 + 0.2 * 2.0, 1.1 * h1 + 0.2 * 3.0]).view(1, 2, 1) * gate

    y, state = selective_scan_reference(
        u, delta, A, B, C, D, z, bias, True, return_final_state=True
    )
    assert_close(y, expected, 1e-15)
    assert_close(state, h1.view(1, 1, 1), 1e-15)


def test_selective_scan_groups_serve_neighbouring_channels() -> None:
    b, l, d, n = 2, 5, 6, 3
    u, delta = torch.randn(b, l, d), torch.rand(b, l, d)
    A, B, C = -torch.rand(d, n), torch.randn(b, l, 2, n), torch.randn(b, l, 3, n)
    y = selective_scan_reference(u, delta, A, B, C)
    for i in range(d):
        one = slice(i, i + 1)
        alone = selective_scan_reference(
            u[..., one], delta[..., one], A[one], B[:, :, i // 3], C[:, :, i // 2]
        )
        assert torch.equal(y[..., one], alone)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_selective_scan_result_types(dtype: torch.dtype) -> None:
    u = torch.randn(1, 3, 2).to(dtype)
    A = -torch.rand(2, 4)
    y, state = selective_scan_reference(
        u, u.abs(), A, torch.randn(1, 3, 4).to(dtype), torch.randn(2, 4), return_final_state=True
    )
    assert y.dtype is dtype
    assert state.dtype is (torch.float64 if dtype is torch.float64 else torch.float32)


@examples
@given(
    b=st.integers(0, 3),
    l=st.integers(0, 12),
    d=st.integers(1, 4),
    k=st.integers(1, 8),
    bias=st.booleans(),
    silu=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_causal_conv1d_is_torch_conv1d(
    b: int, l: int, d: int, k: int, bias: bool, silu: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    x = torch.randn(b, l, d, dtype=torch.float64, requires_grad=True)
    state = torch.randn(b, d, k - 1, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(d, k, dtype=torch.float64, requires_grad=True)
    offset = torch.randn(d, dtype=torch.float64, requires_grad=True)

    y, final = causal_conv1d_reference(
        x,
        weight,
        offset if bias else None,
        "silu" if silu else None,
        initial_state=state,
        return_final_state=True,
    )
    padded = torch.cat([state, x.transpose(1, 2)], dim=2)
    if b * l > 0:
        expected = F.conv1d(padded, weight.unsqueeze(1), offset if bias else None, groups=d)
    else:
        expected = padded[:, :, k - 1 :]
    expected = (F.silu(expected) if silu else expected).transpose(1, 2)
    assert_close(y, expected, 1e-13, "y")
    assert torch.equal(final, padded[:, :, l:])
    if b * l > 0:
        leaves = [x, weight, state]
        g = torch.randn_like(expected)
        got = torch.autograd.grad(y, leaves, g)
        want = torch.autograd.grad(expected, leaves, g)
        for name, a, e in zip(("x", "weight", "state"), got, want, strict=True):
            assert_close(a, e, 1e-12, f"gradient of {name}")
