"""The stand-ins compile in one piece, with their gradients."""

from __future__ import annotations

import pytest
import torch
from shim_cases import ScanCase, close
from torch import Tensor

pytestmark = pytest.mark.usefixtures("shim")


def test_one_graph() -> None:
    from causal_conv1d import causal_conv1d_fn
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    from mamba_ssm.ops.triton.layer_norm import rms_norm_fn
    from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined

    case = ScanCase(2, 4, 9, 3, (1, 2), False, (True, True, True), True, False, 3)
    tensors = case.tensors(torch.float32)
    u, *others = tensors
    taps, weight = torch.randn(4, 4), torch.rand(4)

    def model(u: Tensor) -> Tensor:
        x = causal_conv1d_fn(u, taps, activation="silu")
        y = selective_scan_fn(x, *others, True).transpose(1, 2)
        y, total = rms_norm_fn(y, weight, None, u.transpose(1, 2), prenorm=True)
        heads = y.unflatten(-1, (2, 2))
        y = mamba_chunk_scan_combined(
            *(heads, total[..., :2].sigmoid(), -weight[:2], total[:, :, None], total[:, :, None]),
            chunk_size=64,
        )
        return y.flatten(2) + total

    u.requires_grad_()
    expected = model(u)
    y = torch.compile(model, fullgraph=True, backend="aot_eager")(u)
    close(y, expected, 1e-5)
    for got, wanted in zip(
        torch.autograd.grad(y.square().sum(), u),
        torch.autograd.grad(expected.square().sum(), u),
        strict=True,
    ):
        close(got, wanted, 1e-4)
