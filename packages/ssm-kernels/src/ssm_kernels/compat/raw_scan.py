"""What the scan extensions share: forward and backward as separate calls, for custom Functions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..backends import Backend
from .selective_scan import ScanTensors, scan


def forward(tensors: ScanTensors, delta_softplus: bool) -> tuple[Tensor, Tensor]:
    """Return y (b, d, l) and the extensions' intermediate x (b, d, 1, 2n), both without gradient.

    x holds the last state in its odd entries, where callers read it; the even ones, products of
    decays in the original, are 0. `backward` does not need it.
    """
    with torch.no_grad():
        y, state = scan(tensors, delta_softplus, Backend.AUTO)
        x = torch.stack([torch.zeros_like(state), state], dim=-1)
    return y, x.flatten(-2).unsqueeze(2)


def backward(
    tensors: ScanTensors, dout: Tensor, delta_softplus: bool
) -> tuple[list[Tensor | None], Tensor]:
    """Return the gradient of each tensor (None for those that are None) and y.

    Runs the forward pass again: what it keeps for the backward pass is not in the extensions' x.
    """
    with torch.enable_grad():
        copies: list[Any] = [None if t is None else t.detach().requires_grad_() for t in tensors]
        leaves = ScanTensors(*copies)
        y, _ = scan(leaves, delta_softplus, Backend.AUTO)
    given = [leaf for leaf in leaves if leaf is not None]
    gradients = iter(torch.autograd.grad(y, given, dout.to(y.dtype)))
    found = [None if leaf is None else next(gradients).contiguous() for leaf in leaves]
    return found, y.detach()
