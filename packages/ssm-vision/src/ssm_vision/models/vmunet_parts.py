"""What VM-UNet is made of: the stem, the block, the way up, stages; under their published names."""

from __future__ import annotations

from einops import rearrange
from torch import nn

from ssm_core.block import DropPath
from ssm_core.linear import Linear
from ssm_core.norm import LayerNorm
from ssm_vision.models.image_model import Images
from ssm_vision.models.patch_merging import PatchMerging
from ssm_vision.models.ss2d import ChannelLast
from ssm_vision.models.vss_block import within


class PatchEmbed(nn.Module):
    """Squares of pixels that do not overlap -> (b, rows, columns, d)."""

    def __init__(self, in_chans: int, d_model: int, patch: int, norm: bool) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, d_model, patch, stride=patch)
        self.norm = LayerNorm(d_model) if norm else None

    def forward(self, images: Images) -> ChannelLast:
        x = self.proj(images).permute(0, 2, 3, 1)
        return x if self.norm is None else self.norm(x)


class UNetBlock(nn.Module):
    """x + drop(self_attention(ln_1(x))); `self_attention` is the published name of the mixer."""

    def __init__(self, d_model: int, mixer: nn.Module, drop_path: float) -> None:
        super().__init__()
        self.ln_1 = LayerNorm(d_model)
        self.self_attention = mixer
        self.drop_path = DropPath(drop_path)

    @property
    def branches(self) -> tuple[str, ...]:
        """The part that adds to the residual stream; without it the block is the identity."""
        return (within("self_attention", self.self_attention),)

    def forward(self, x: ChannelLast) -> ChannelLast:
        return x + self.drop_path(self.self_attention(self.ln_1(x)))


class PatchExpand(nn.Module):
    """(b, y, x, d) -> (b, f y, f x, d_out): a linear map makes f x f pixels of one, then a norm.

    The channels of the new pixels follow each other row by row (`nn.PixelShuffle` has the pixels
    innermost instead).
    """

    def __init__(self, d_model: int, d_out: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.expand = Linear(d_model, factor**2 * d_out, bias=False)
        self.norm = LayerNorm(d_out)

    def forward(self, x: ChannelLast) -> ChannelLast:
        f = self.factor
        x = rearrange(self.expand(x), "b y x (p q d) -> b (y p) (x q) d", p=f, q=f)
        return self.norm(x)


class DownStage(nn.Module):
    """Blocks, and what halves the resolution for the next stage."""

    def __init__(self, blocks: list[nn.Module], downsample: PatchMerging | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample


class UpStage(nn.Module):
    """What doubles the resolution of the stage before, and blocks."""

    def __init__(self, upsample: PatchExpand | None, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.upsample = upsample
        self.blocks = nn.ModuleList(blocks)
