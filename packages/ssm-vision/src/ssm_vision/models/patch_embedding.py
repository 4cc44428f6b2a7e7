"""Cut an image into patches, which may overlap, and make a token of each.

Source: Dosovitskiy et al. 2021, arXiv:2010.11929, Eq. 1.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

#: standard deviation of a standard normal cut off at +-2; divides that of the law below in the
#: variance scaling that ViT takes from LeCun, without anything being cut off in effect
CUT_NORMAL_STD = 0.87962566103423978


class PatchEmbedding(nn.Module):
    """Images (b, c, y, x) -> tokens (b, d, rows, columns), rows = (y - patch) // stride + 1.

    Pixels that fill no whole patch at the right and the lower edge are not seen.

    Parameters: `proj`, a convolution (d, c, patch, patch) with bias.

    Cost: O(b rows columns d c patch^2).
    """

    def __init__(self, in_chans: int, embed_dim: int, patch_size: int, stride: int) -> None:
        super().__init__()
        self.patch_size, self.stride = patch_size, stride
        self.proj = nn.Conv2d(in_chans, embed_dim, patch_size, stride)
        std = math.sqrt(1 / (in_chans * patch_size**2)) / CUT_NORMAL_STD
        nn.init.trunc_normal_(self.proj.weight, std=std)
        nn.init.zeros_(self.proj.bias)  # type: ignore[arg-type]

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches in an image of that size."""
        rows, columns = (
            (pixels - self.patch_size) // self.stride + 1 for pixels in (height, width)
        )
        return rows, columns

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images)
