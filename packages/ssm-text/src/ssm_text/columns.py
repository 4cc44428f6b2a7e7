"""Weights in the order in which a CPU reads them fastest for one token at a time.

A step multiplies one vector with every matrix and takes as long as reading these. Row by row the
product is a sum along each row, which MKL does at half the speed of the memory; column by column it
adds multiples of columns, at the full speed. What is stored, and its names and shapes, stay.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)

#: numbers in a matrix below which it stays in the caches, where both orders are fast
LEAST = 2**16
#: read by kernels of their own, which want rows
_BY_ROWS = ("x_proj", "dt_proj")


def store_by_columns(model: Model) -> Model:
    """Store the large float32 matrices of the model's linear layers on a CPU by columns, in place.

    The weights are then not contiguous: `safetensors.torch.save_file` refuses such a state dict;
    `save_pretrained` and run folders take it. Everything else works as before, with other
    rounding. Matrices in half precision and on other devices stay: they gain nothing.

    Cost: one copy of each matrix, one after the other.
    """
    for name, part in model.named_modules():
        if isinstance(part, nn.Linear) and name.rpartition(".")[2] not in _BY_ROWS:
            weight = part.weight
            if _gains(weight):
                weight.data = weight.data.t().contiguous().t()
    return model


def _gains(weight: Tensor) -> bool:
    return (
        weight.device.type == "cpu"
        and weight.dtype is torch.float32
        and weight.numel() >= LEAST
        and weight.is_contiguous()
    )
