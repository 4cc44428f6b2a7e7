"""This project's operators as subjects."""

from __future__ import annotations

import torch
from torch import Tensor

from ssm_kernels import causal_conv1d, selective_scan

from .cases import WIDTH, ScanInputs, Shape, Subject
from .peers import torch_conv
from .report import OURS


def scan_subject(inputs: ScanInputs, grad_y: Tensor) -> Subject:
    def call() -> Tensor:
        y = selective_scan(*inputs)
        assert isinstance(y, Tensor)
        return y

    return Subject(OURS, call, inputs, grad_y)


def conv_subjects(shape: Shape) -> list[Subject]:
    """Convolution and SiLU on random inputs: ours, PyTorch's Conv1d, a sum of shifted products."""
    x = torch.randn(shape.b, shape.l, shape.d).requires_grad_()
    weight = torch.randn(shape.d, WIDTH).requires_grad_()
    grad_y = torch.randn_like(x)

    def conv(backend: str) -> Tensor:
        y = causal_conv1d(x, weight, activation="silu", backend=backend)
        assert isinstance(y, Tensor)
        return y

    calls = {
        OURS: lambda: conv("auto"),
        "torch Conv1d": lambda: torch_conv.conv(x, weight),
        "shifted sums": lambda: conv("reference"),
    }
    return [Subject(name, call, (x, weight), grad_y) for name, call in calls.items()]
