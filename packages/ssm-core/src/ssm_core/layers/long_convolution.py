"""Convolutions as long as their input, by FFT: how S4 and S4D run over a whole sequence.

Cost: O(b c h l log l) time and O(b c h l) memory, against O(b c h l^2) of the sums below.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fft import fft, ifft, irfft, rfft
from torch.nn import functional as F

from ssm_core.shapes import Activations, ConvolutionKernel
from ssm_kernels.checks import COMPLEX_OF

# PyTorch 2.6 cannot trace the FFT of real numbers with a length that is not known; 2.15 can. What
# lies between was not tried: there a compiled graph has the complex FFT, of twice the work.
_REAL_FFT_CAN_BE_TRACED = torch.__version__ >= "2.15"


def long_convolution(u: Activations, K: ConvolutionKernel) -> Tensor:
    """Return y[t] = sum_{s<=t} K[t-s] u[s], (b, l, c, h), for every feature and channel.

    Args:
        u: (b, l, h), float32 or float64: half precision has too few digits, and its FFT exists for
            powers of two alone.
        K: (c, h, l), one kernel per channel and feature.

    Source: Gu, Goel & Re 2021, arXiv:2111.00396, section 2.4.
    """
    return _convolve(u, _spectrum(K, _fft_length(u.shape[1])))


def bidirectional_convolution(
    u: Activations, K: ConvolutionKernel, K_backward: ConvolutionKernel
) -> Tensor:
    """Return y[t] = sum_{s<=t} K[t-s] u[s] + sum_{s>t} K_backward[s-t-1] u[s], (b, l, c, h).

    The backward sum starts at the next step: the present one belongs to K.

    Args:
        u: as in `long_convolution`.
        K, K_backward: (c, h, l) each.

    Source: Goel, Gu, Donahue & Re 2022, arXiv:2202.09729, section 4.2 (bidirectional S4); the shift
    by one step is that of the official checkpoints.
    """
    l = u.shape[1]
    n = _fft_length(l)
    # a circular convolution of n steps finds the lag -1 - s at n - 1 - s
    circular = F.pad(K, (0, n - l)) + F.pad(K_backward.flip(-1), (n - l, 0))
    return _convolve(u, _spectrum(circular, n))


def _fft_length(l: int) -> int:
    # 2 l is enough for what reaches past the end not to come in at the beginning. Multiples of 64
    # have few large prime factors, which make an FFT slow. There is an FFT without steps too, so
    # that l = 0 is no special case.
    if _is_exporting():
        # linear in l: of other expressions torch.export cannot prove what the FFT asks
        return 2 * l + 64
    return 2 * l + -2 * l % 64 if l > 1 else 64


def _convolve(u: Activations, spectrum: Tensor) -> Tensor:
    if u.shape[0] == 0:  # PyTorch 2.6 has no FFT of nothing
        return u.unsqueeze(2) * spectrum.real.sum(-1)
    l = u.shape[1]
    n = _fft_length(l)
    U = _spectrum(u.transpose(1, 2), n).unsqueeze(1)  # (b, 1, h, frequencies)
    product = U * spectrum
    y = ifft(product, n=n).real if _must_be_complex() else irfft(product, n=n)
    return y[..., :l].permute(0, 3, 1, 2)


def _spectrum(x: Tensor, n: int) -> Tensor:
    """Return the FFT of x (.., l), real, as if it were 0 up to n: (.., frequencies)."""
    return fft(x.to(COMPLEX_OF[x.dtype]), n=n) if _must_be_complex() else rfft(x, n=n)


def _is_exporting() -> bool:
    is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)  # 2.6
    return bool(is_exporting())


def _must_be_complex() -> bool:
    return torch.compiler.is_compiling() and not _REAL_FFT_CAN_BE_TRACED
