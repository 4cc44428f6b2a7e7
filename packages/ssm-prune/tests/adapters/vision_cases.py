"""Blocks of ssm-vision whose units are removed and masked."""

from __future__ import annotations

from collections.abc import Callable

from removal_cases import RemovalCase
from torch import Tensor, nn

from ssm_vision.generative.diffusion_model import ConditionedBlock
from ssm_vision.models.mambavision_blocks import Attention, ConvBlock, MixedBlock
from ssm_vision.models.mambavision_config import MambaVisionConfig
from ssm_vision.models.mambavision_mixer import MambaVisionMixer, MambaVisionMixerConfig
from ssm_vision.models.s4nd_vit import S4NDViTBlock, S4NDViTConfig
from ssm_vision.models.ss2d import SS2D, SS2DConfig
from ssm_vision.models.vim_block import VimBlock
from ssm_vision.models.vim_config import VimConfig
from ssm_vision.models.vim_tokens import places_of
from ssm_vision.models.vmunet_parts import UNetBlock
from ssm_vision.models.vss_block import RowByRow, VSSBlock

MAP = (2, 3, 5, 16)
TOKENS = (2, 7, 16)
IMAGE = (2, 16, 5, 4)
OPTIONS = MambaVisionConfig(dim=4, in_dim=4)


class Several(nn.Module):
    """Blocks one after the other, with what they need beside the input."""

    def __init__(self, blocks: list[nn.Module], *given: object) -> None:
        super().__init__()
        self.blocks, self.given = nn.ModuleList(blocks), given

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, *self.given)
        return x


def several(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: Several([make() for _ in range(4)])


def case(
    make: Callable[[], nn.Module], kind: str, input_shape: tuple[int, ...] = MAP
) -> RemovalCase:
    return RemovalCase(several(make), kind, input_shape, causal=False)


def ss2d(**options: object) -> Callable[[], nn.Module]:
    return lambda: VSSBlock(16, SS2D(16, SS2DConfig(**options)))  # type: ignore[arg-type]


def mixed(**options: object) -> Callable[[], nn.Module]:
    config = MambaVisionMixerConfig(**options)  # type: ignore[arg-type]
    return lambda: MixedBlock(16, MambaVisionMixer(16, config), 0.0, OPTIONS)


def attention() -> nn.Module:
    return MixedBlock(16, Attention(16, 4, OPTIONS), 0.0, OPTIONS)


def convolutions(layer_scale: float | None = None) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        block = ConvBlock(16, 0.0, layer_scale)
        for norm in (block.norm1, block.norm2):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2.0)
        return block

    return make


def in_evaluation(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: make().eval()


def vim(**options: object) -> Callable[[], nn.Module]:
    mixer = {"d_state": 4, "layer_scale": 0.5}
    config = VimConfig(embed_dim=16, mixer_options=mixer, **options)  # type: ignore[arg-type]
    blocks = 3
    return lambda: Several(
        [VimBlock(config, 0.0) for _ in range(blocks)], places_of("middle", 2, 3)
    )


def s4nd(**options: object) -> Callable[[], nn.Module]:
    config = S4NDViTConfig(d_model=16, mlp_ratio=2, mixer_options=options)
    return lambda: S4NDViTBlock(config, 0.0)


CASES = {
    "ss2d-channels": case(ss2d(d_state=3), "channels"),
    "ss2d-channels-plain": case(
        ss2d(d_state=1, ssm_ratio=1.5, gated=False, conv_bias=False), "channels"
    ),
    "ss2d-states": case(ss2d(d_state=5), "states"),
    "ss2d-states-plain": case(ss2d(d_state=4, gated=False), "states"),
    "ss2d-blocks": case(ss2d(d_state=2), "blocks"),
    "vss-channels": case(lambda: VSSBlock(16, SS2D(16), 24), "channels"),
    "vss-blocks": case(lambda: VSSBlock(16, SS2D(16), 24), "blocks"),
    "rows-states": case(lambda: VSSBlock(16, RowByRow(MambaVisionMixer(16)), 24), "states"),
    "rows-blocks": case(lambda: VSSBlock(16, RowByRow(MambaVisionMixer(16)), 24), "blocks"),
    "unet-blocks": case(lambda: UNetBlock(16, SS2D(16), 0.0), "blocks"),
    "unet-rows-blocks": case(lambda: UNetBlock(16, RowByRow(MambaVisionMixer(16)), 0.0), "blocks"),
    "mambavision-channels": case(mixed(expand=2), "channels", TOKENS),
    "mambavision-channels-odd": case(mixed(d_inner=22, dt_rank=3), "channels", TOKENS),
    "mambavision-states": case(mixed(d_state=5), "states", TOKENS),
    "mambavision-blocks": case(mixed(), "blocks", TOKENS),
    "attention-heads": case(attention, "heads", TOKENS),
    "attention-channels": case(attention, "channels", TOKENS),
    "attention-blocks": case(attention, "blocks", TOKENS),
    "convolutions-channels": case(convolutions(), "channels", IMAGE),
    "convolutions-channels-evaluation": case(in_evaluation(convolutions(0.5)), "channels", IMAGE),
    "convolutions-blocks": case(convolutions(0.5), "blocks", IMAGE),
    "convolutions-blocks-evaluation": case(in_evaluation(convolutions()), "blocks", IMAGE),
    "vim-channels": RemovalCase(vim(), "channels", TOKENS, False),
    "vim-blocks": RemovalCase(vim(), "blocks", TOKENS, False),
    "vim-depthwise-channels": RemovalCase(vim(depthwise=2), "channels", TOKENS, False),
    "vim-depthwise-blocks": RemovalCase(vim(depthwise=2), "blocks", TOKENS, False),
    **{
        f"vim-squeezed-{where}-blocks": RemovalCase(
            vim(squeeze_excitation=where, se_reduction=4), "blocks", TOKENS, False
        )
        for where in ("input", "mixer", "block")
    },
    "s4nd-states": case(s4nd(d_state=8, channels=2, n_ssm=2), "states"),
    "s4nd-states-untied": case(s4nd(d_state=6, dt_tie=False, rank=2), "states"),
    "s4nd-channels": case(s4nd(d_state=4), "channels"),
    "s4nd-blocks": case(s4nd(d_state=4), "blocks"),
    "s4nd-s4-blocks": case(s4nd(d_state=4, kernel="s4", n_ssm=1, l_max=5), "blocks"),
    "diffusion-blocks": RemovalCase(lambda: Conditioned(), "blocks", TOKENS, False),
}


class Conditioned(nn.Module):
    """Blocks that the same condition reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(16, 16)
        self.blocks = nn.ModuleList(ConditionedBlock(16, MambaVisionMixer(16)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        condition = self.first(x[:, 0])
        for block in self.blocks:
            x = block(x, condition)
        return x
