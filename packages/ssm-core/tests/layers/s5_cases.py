"""A layer that the tests of S5 share."""

from __future__ import annotations

import torch

from ssm_core.layers.s5 import S5
from ssm_core.layers.s5_config import S5Config


def strong(d_model: int, config: S5Config, seed: int = 0) -> S5:
    """A layer in float64 whose every parameter matters; some eigenvalues grow unless clipped."""
    torch.manual_seed(seed)
    layer = S5(d_model, config).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.5)
        layer.log_step.uniform_(-3, 0)
    return layer
