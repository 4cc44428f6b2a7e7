"""Squeeze-and-excitation over tokens: weigh every channel by what the whole image holds.

Source: Hu et al. 2018, arXiv:1709.01507, section 3 and Figure 5 (places in a residual block).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssm_core.shapes import Activations
from ssm_core.units import BlockAdapter


class SqueezeExcitation(nn.Module):
    """y = x * 2 sigmoid(fc2(relu(fc1(mean of the patches)))) over tokens x (b, l, d).

    The squeeze is the mean over patches: a class token is no part of the image, and its channels
    would enter with the weight of one patch or another according to the size of the image. The
    gates weigh the channels of all tokens, class tokens included, because the next layer reads the
    same channels from all of them.

    The factor 2 makes the gates start near 1. With gates near 1/2, as in the paper, 24 blocks would
    shrink the residual stream by 2^24 where the gate stands on it; elsewhere the factor is absorbed
    by the linear maps around.

    Parameters: fc1 (ceil(d / reduction), d), fc2 (d, ceil(d / reduction)), with biases.

    Cost: O(b l d + b d^2 / reduction).
    """

    def __init__(self, d_model: int, reduction: int) -> None:
        super().__init__()
        hidden = -(-d_model // reduction)
        self.fc1 = nn.Linear(d_model, hidden)
        self.fc2 = nn.Linear(hidden, d_model)

    def removable_units(self) -> BlockAdapter:
        """None; with fc2 all zero every gate is exactly 1."""
        return BlockAdapter((), ("fc2.weight", "fc2.bias"))

    def forward(self, x: Activations, patches: Tensor) -> Activations:
        """Weigh the channels of x (b, l, d) by the mean of `patches` (b, p, d)."""
        mean = patches.mean(dim=1, keepdim=True).to(self.fc1.weight.dtype)
        gates = 2 * torch.sigmoid(self.fc2(F.relu(self.fc1(mean))))
        return x * gates.to(x.dtype)
