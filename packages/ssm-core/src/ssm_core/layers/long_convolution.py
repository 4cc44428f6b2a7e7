"""Convolutions as long as their input, by FFT: how S4 and S4D run over a whole sequence.

Cost: O(b c h l log l) time and O(b c h l) memory, against O(b c h l^2) of the sums below.
"""

from __future__ import annotations

from torch import Tensor
from torch.fft import irfft, rfft
from torch.nn import functional as F

from ssm_core.shapes import Activations, ConvolutionKernel


def long_convolution(u: Activations, K: ConvolutionKernel) -> Tensor:
    """Return y[t] = sum_{s<=t} K[t-s] u[s], (b, l, c, h), for every feature and channel.

    Args:
        u: (b, l, h), float32 or float64: half precision has too few digits, and its FFT exists for
            powers of two alone.
        K: (c, h, l), one kernel per channel and feature.

    Source: Gu, Goel & Re 2021, arXiv:2111.00396, section 2.4.
    """
    return _convolve(u, rfft(K, n=_fft_length(u.shape[1])))


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
    return _convolve(u, rfft(circular, n=n))


def _fft_length(l: int) -> int:
    # 2 l - 1 is enough for what reaches past the end not to come in at the beginning; even lengths
    # are faster, and without steps there still is an FFT, so that l = 0 is no special case
    return 2 * l + 2


def _convolve(u: Activations, spectrum: Tensor) -> Tensor:
    l = u.shape[1]
    n = _fft_length(l)
    U = rfft(u.transpose(1, 2), n=n).unsqueeze(1)  # (b, 1, h, frequencies)
    return irfft(U * spectrum, n=n)[..., :l].permute(0, 3, 1, 2)
