"""Convolutions by FFT against the sums that define them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ssm_core.layers import long_convolution as module
from ssm_core.layers.long_convolution import bidirectional_convolution, long_convolution

LENGTHS = [0, 1, 2, 3, 31, 32, 33, 64, 100]


def causal_sum(u: Tensor, K: Tensor) -> Tensor:
    (b, l, h), c = u.shape, K.shape[0]
    y = u.new_zeros(b, l, c, h)
    for t in range(l):
        for s in range(t + 1):
            y[:, t] += K[:, :, t - s] * u[:, s].unsqueeze(1)
    return y


def backward_sum(u: Tensor, K: Tensor) -> Tensor:
    (b, l, h), c = u.shape, K.shape[0]
    y = u.new_zeros(b, l, c, h)
    for t in range(l):
        for s in range(t + 1, l):
            y[:, t] += K[:, :, s - t - 1] * u[:, s].unsqueeze(1)
    return y


def random(l: int, b: int = 2, c: int = 2, h: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    dtype = torch.float64
    u = torch.randn(b, l, h, dtype=dtype)
    return u, torch.randn(c, h, l, dtype=dtype), torch.randn(c, h, l, dtype=dtype)


@pytest.mark.parametrize("l", LENGTHS)
def test_causal_convolution_is_the_sum(l: int) -> None:
    u, K, _ = random(l)
    y = long_convolution(u, K)
    assert y.shape == (2, l, 2, 3)
    torch.testing.assert_close(y, causal_sum(u, K), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("l", LENGTHS)
def test_bidirectional_convolution_is_the_sum(l: int) -> None:
    u, K, K_backward = random(l)
    expected = causal_sum(u, K) + backward_sum(u, K_backward)
    y = bidirectional_convolution(u, K, K_backward)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("l", [0, 5, 40])
def test_complex_fft_of_old_compilers_is_the_same(l: int, monkeypatch: pytest.MonkeyPatch) -> None:
    u, K, K_backward = random(l)
    expected = long_convolution(u, K), bidirectional_convolution(u, K, K_backward)
    monkeypatch.setattr(module, "_must_be_complex", lambda: True)
    got = long_convolution(u, K), bidirectional_convolution(u, K, K_backward)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("b", "l"), [(0, 3), (0, 0), (1, 0)])
def test_nothing_to_convolve_has_gradients(b: int, l: int) -> None:
    u, K, _ = random(l, b=b)
    u.requires_grad_()
    K.requires_grad_()
    y = long_convolution(u, K)
    assert y.shape == (b, l, 2, 3)
    y.sum().backward()
    assert u.grad is not None
    assert K.grad is not None
    assert not K.grad.any()


def test_gradients() -> None:
    inputs = [x.requires_grad_() for x in random(4)]
    assert torch.autograd.gradcheck(lambda u, K, _: long_convolution(u, K), inputs)
    assert torch.autograd.gradcheck(bidirectional_convolution, inputs)


@pytest.mark.parametrize("l", [*range(2, 70), 1000, 1024])
def test_fft_is_long_enough_and_no_longer_than_needed(l: int) -> None:
    n = module._fft_length(l)
    assert 2 * l <= n < 2 * l + 64
    assert n % 64 == 0


def test_float32_keeps_its_digits_over_thousands_of_steps() -> None:
    u, K, _ = random(4096, b=1, c=1)
    y = long_convolution(u.float(), K.float())
    assert y.dtype == torch.float32
    error = (y - long_convolution(u, K)).abs().max()
    assert error < 1e-6 * u.norm() * K.norm()
