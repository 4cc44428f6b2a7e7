"""Half the rows and columns of a map: four neighbouring pixels become one.

Source: Liu et al. 2021, arXiv:2103.14030, section 3.1 (Swin).
"""

from __future__ import annotations

from einops import rearrange
from torch import nn
from torch.nn import functional as F

from ssm_core.linear import Linear
from ssm_core.norm import LayerNorm
from ssm_vision.models.ss2d import ChannelLast


class PatchMerging(nn.Module):
    """(b, y, x, d) -> (b, ceil(y / 2), ceil(x / 2), d_out): 4 d channels, normed, projected.

    The channels of the four pixels follow each other down the left column, then down the right one.
    An odd map gets a row or a column of zeros at its end.
    """

    def __init__(self, d_model: int, d_out: int) -> None:
        super().__init__()
        self.reduction = Linear(4 * d_model, d_out, bias=False)
        self.norm = LayerNorm(4 * d_model)

    def forward(self, x: ChannelLast) -> ChannelLast:
        rows, columns = x.shape[1:3]
        if rows % 2 or columns % 2:
            x = F.pad(x, (0, 0, 0, columns % 2, 0, rows % 2))
        x = rearrange(x, "b (y row) (x column) d -> b y x (column row d)", row=2, column=2)
        return self.reduction(self.norm(x))
