"""`GatedMLP` of mamba_ssm."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class GatedMLP(nn.Module):
    """fc2(u act(g)) with u, g the halves of fc1(x), on every step: (b, l, d) -> (b, l, d).

    Source: Shazeer 2020, arXiv:2002.05202 (SwiGLU).
    """

    # The arguments and their order are the original's.
    def __init__(
        self,
        in_features: int,
        hidden_features: int | None = None,
        out_features: int | None = None,
        activation: Callable[[Tensor], Tensor] = F.silu,
        bias: bool = False,
        multiple_of: int = 128,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Make an MLP.

        Args:
            hidden_features: rounded up to a multiple of `multiple_of`; None means 8/3 in_features.
            out_features: None means in_features.
            activation: act, of the second half.
        """
        super().__init__()
        hidden = int(8 * in_features / 3) if hidden_features is None else hidden_features
        hidden = -(-hidden // multiple_of) * multiple_of
        out = in_features if out_features is None else out_features
        self.fc1 = nn.Linear(in_features, 2 * hidden, bias=bias, device=device, dtype=dtype)
        self.activation = activation
        self.fc2 = nn.Linear(hidden, out, bias=bias, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        u, gate = self.fc1(x).chunk(2, dim=-1)
        y: Tensor = self.fc2(u * self.activation(gate))
        return y
