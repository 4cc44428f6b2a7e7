"""Whether an installed ssm-kernels works: `python tests/smoke.py`, seconds, needs torch alone.

The native kernels of the processor, every instruction set of this machine, against the reference.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

import ssm_kernels
from ssm_kernels import native


def cases() -> dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...]]]:
    """An operator as a function of tensors and a backend, and those tensors."""
    b, l, d, n = 2, 33, 17, 5
    x, delta, z = (torch.randn(b, l, d) for _ in range(3))
    B, C = torch.randn(b, l, n), torch.randn(b, l, n)
    A, weight = -torch.rand(d, n), torch.randn(d, 4)
    poles = torch.complex(-torch.rand(d, n), torch.randn(d, n))

    def scan(x: Tensor, delta: Tensor, z: Tensor, A: Tensor, B: Tensor, C: Tensor, **which: str):
        return ssm_kernels.selective_scan(x, delta, A, B, C, z=z, delta_softplus=True, **which)

    def kernel(v: Tensor, x: Tensor, **which: str):
        return ssm_kernels.log_vandermonde(v, x, l, **which)

    return {
        "selective_scan": (scan, (x, delta, z, A, B, C)),
        "causal_conv1d": (ssm_kernels.causal_conv1d, (x, weight)),
        "diagonal_scan": (ssm_kernels.diagonal_scan, (torch.rand(b, l, d), x)),
        "log_vandermonde": (kernel, (torch.randn(d, n, dtype=torch.complex64), poles)),
    }


def results(
    function: Callable[..., Tensor], tensors: tuple[Tensor, ...], backend: str
) -> list[Tensor]:
    """The value and the gradient of every tensor."""
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    y = function(*leaves, backend=backend)
    return [y.detach(), *torch.autograd.grad(y.square().sum(), leaves)]


def main() -> None:
    assert native.AVAILABLE, native.IMPORT_ERROR
    torch.manual_seed(0)
    for isa in native.available_isas():
        native.set_isa(isa)
        for name, (function, tensors) in cases().items():
            expected = results(function, tensors, "reference")
            for ours, wanted in zip(results(function, tensors, "cpu"), expected, strict=True):
                torch.testing.assert_close(ours, wanted, rtol=1e-3, atol=1e-4, msg=f"{name}, {isa}")
    print(
        f"ssm-kernels {ssm_kernels.__version__} agrees with its reference on "
        f"{', '.join(native.available_isas())}; torch {torch.__version__}"
    )


if __name__ == "__main__":
    main()
