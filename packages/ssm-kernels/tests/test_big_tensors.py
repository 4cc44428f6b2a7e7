"""Offsets beyond 2^31 elements: strides that reach that far, and tensors that are that large.

The tests of strides touch a few pages of a storage that is never filled. Those of tensors are
`bigmem`: inputs are expanded (stride 0), results take up to 14 GiB.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ssm_kernels import causal_conv1d, native, selective_scan

pytestmark = pytest.mark.skipif(not native.AVAILABLE, reason="the compiled kernels are missing")

LIMIT = 2**31


def spread_out(tensor: Tensor) -> Tensor:
    """A copy (b, l, d) of `tensor` whose last elements lie more than 2^31 elements into memory."""
    batch, steps, channels = tensor.shape
    stride_l = LIMIT // (steps - 1)
    stride_b = stride_l // 2
    length = (batch - 1) * stride_b + (steps - 1) * stride_l + channels
    assert length > LIMIT
    storage = torch.empty(length, dtype=tensor.dtype)  # memory for the touched pages alone
    far = storage.as_strided(tensor.shape, (stride_b, stride_l, 1))
    return far.copy_(tensor)


@pytest.mark.parametrize("reverse", [False, True])
def test_scan_follows_strides_beyond_32_bits(isa: str, reverse: bool) -> None:
    b, l, d, n = 2, 35, 17, 3
    u, delta, z = torch.randn(3, b, l, d).bfloat16().unbind()
    A, B, C = -torch.rand(d, n), torch.randn(b, l, n).bfloat16(), torch.randn(b, l, n).bfloat16()

    def outputs(u: Tensor) -> list[Tensor]:
        u = u.detach().requires_grad_()
        y = selective_scan(
            u, delta, A, B, C, z=z, delta_softplus=True, reverse=reverse, backend="cpu"
        )
        return [y, *torch.autograd.grad(y, u, torch.ones_like(y))]

    for far, near in zip(outputs(spread_out(u)), outputs(u), strict=True):
        assert torch.equal(far, near)


@pytest.mark.parametrize("reverse", [False, True])
def test_convolution_follows_strides_beyond_32_bits(isa: str, reverse: bool) -> None:
    b, l, d, k = 2, 70, 17, 4
    x, weight = torch.randn(b, l, d).bfloat16(), torch.randn(d, k)

    def outputs(x: Tensor) -> list[Tensor]:
        x = x.detach().requires_grad_()
        y = causal_conv1d(x, weight, activation="silu", reverse=reverse, backend="cpu")
        return [y, *torch.autograd.grad(y, x, torch.ones_like(y))]

    for far, near in zip(outputs(spread_out(x)), outputs(x), strict=True):
        assert torch.equal(far, near)


def available_gib() -> float:
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            sizes = dict(line.split(":") for line in lines)
    except OSError:  # not Linux: trust the one who asked for these tests
        return float("inf")
    return float(sizes["MemAvailable"].split()[0]) / 2**20


@pytest.fixture
def _fourteen_gib() -> None:
    if available_gib() < 15:
        pytest.skip(f"needs 15 GiB of free memory, there are {available_gib():.0f}")


# (b, l, d): where the large offsets come from, and the part of the tensor that is computed again.
SHAPES = {
    "many sequences": ((65_600, 32, 1024), (slice(-1, None), slice(None), slice(None))),
    "long sequences": ((1, 2_097_200, 1025), (slice(None), slice(None), slice(-1, None))),
}


@pytest.mark.bigmem
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("_fourteen_gib")
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", SHAPES)
def test_scan_of_a_tensor_above_2_31_elements(name: str, reverse: bool) -> None:
    shape, part = SHAPES[name]
    (b, l, d), n = shape, 1
    assert b * l * d > LIMIT
    u = torch.randn(1, 1, d).bfloat16().expand(shape).detach()
    delta = (0.1 * torch.rand(1, l, 1)).bfloat16().expand(shape).detach()
    A = -torch.rand(d, n)
    B, C = torch.randn(2, 1, l, n).bfloat16().expand(2, b, l, n).unbind()
    cotangent = torch.randn(1, l, 1).bfloat16()

    def outputs(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> list[Tensor]:
        u, delta = u.detach().requires_grad_(), delta.detach().requires_grad_()
        y = selective_scan(u, delta, A, B, C, reverse=reverse, backend="cpu")
        return [y.detach(), *torch.autograd.grad(y, (u, delta), cotangent.expand(y.shape))]

    whole = [tensor[part].clone() for tensor in outputs(u, delta, A, B, C)]
    batch, _, channels = part
    again = outputs(u[part], delta[part], A[channels], B[batch], C[batch])
    for got, expected in zip(whole, again, strict=True):
        assert got.abs().max() > 0
        torch.testing.assert_close(got, expected, rtol=2**-7, atol=1e-4)


@pytest.mark.bigmem
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("_fourteen_gib")
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", SHAPES)
def test_convolution_of_a_tensor_above_2_31_elements(name: str, reverse: bool) -> None:
    shape, part = SHAPES[name]
    _, l, d = shape
    x = torch.randn(1, l, 1).bfloat16().expand(shape).detach()
    weight, bias = torch.randn(d, 4), torch.randn(d)
    cotangent = torch.randn(1, l, 1).bfloat16()

    def outputs(x: Tensor, weight: Tensor, bias: Tensor) -> list[Tensor]:
        x = x.detach().requires_grad_()
        y = causal_conv1d(x, weight, bias, activation="silu", reverse=reverse, backend="cpu")
        return [y.detach(), *torch.autograd.grad(y, x, cotangent.expand(y.shape))]

    whole = [tensor[part].clone() for tensor in outputs(x, weight, bias)]
    again = outputs(x[part], weight[part[2]], bias[part[2]])
    for got, expected in zip(whole, again, strict=True):
        assert got.abs().max() > 0
        torch.testing.assert_close(got, expected, rtol=2**-7, atol=1e-4)
