"""Small models of every family, for the tests that all of them must pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ssm_core import DataInfo
from ssm_vision.models.image_model import ImageModel
from ssm_vision.models.mambavision import MambaVision
from ssm_vision.models.mambavision_config import MambaVisionConfig
from ssm_vision.models.s4nd_vit import S4NDViT, S4NDViTConfig
from ssm_vision.models.vim import Vim
from ssm_vision.models.vim_config import VimConfig
from ssm_vision.models.vmamba import VMamba
from ssm_vision.models.vmamba_config import VMambaConfig
from ssm_vision.models.vmunet import VMUNet
from ssm_vision.models.vmunet_config import VMUNetConfig

INFO = DataInfo(input_shape=(3, 32, 32), n_outputs=5)


class Case(NamedTuple):
    """A model of a thousand or so parameters."""

    build: Callable[[DataInfo], ImageModel]
    least: int
    """pixels of a side of the smallest image"""
    sizes: tuple[tuple[int, int], ...] = ((32, 32), (40, 24), (33, 47))
    """image sizes that must work"""


def mambavision(**options: Any) -> Case:
    config = MambaVisionConfig(
        dim=8, in_dim=4, depths=(1, 1, 2, 2), num_heads=(2, 2), windows=(3, 2), **options
    )
    return Case(lambda info: MambaVision(config, info), least=1)


def _s4nd_vit(mixer: str, **options: object) -> Case:
    config = S4NDViTConfig(8, 8, 2, 2, mixer, {"d_state": 4, "channels": 2, **options}, 0.1)
    return Case(lambda info: S4NDViT(config, info), least=1)


def vim(stride: int = 8, mixer: str = "bimamba", **options: Any) -> Case:
    own = {"d_state": 4, "layer_scale": 0.5} if mixer == "bimamba" else {}
    config = VimConfig(
        patch_size=8,
        stride=stride,
        embed_dim=16,
        depth=2,
        mixer=mixer,
        mixer_options=own,
        **options,
    )
    return Case(lambda info: Vim(config, info), least=8)


def vmamba(**options: Any) -> Case:
    config = VMambaConfig(depths=(1, 2, 1), dims=(8, 16, 24), **options)
    return Case(lambda info: VMamba(config, info), least=config.least_pixels)


CASES: dict[str, Case] = {
    "mambavision": mambavision(),
    "mambavision-scales-sliding": mambavision(
        layer_scale=0.1, layer_scale_conv=0.1, attention_window=3
    ),
    "mambavision-s4d": mambavision(mixer="s4d", mixer_options={"d_state": 4}),
    "s4nd-vit": _s4nd_vit("s4nd"),
    "s4nd-vit-s4-rank-2": _s4nd_vit("s4nd", kernel="s4", rank=2, l_max=4, n_ssm=1),
    "s4nd-vit-sequence": _s4nd_vit("s4", bidirectional=True),
    "vim": vim(),
    "vim-overlapping": vim(stride=4, class_token="double"),
    "vim-max": vim(class_token="none", pool="max"),
    "vim-experiments": vim(
        class_token="head", norm="layer", squeeze_excitation="mixer", depthwise=2
    ),
    "vim-mamba2": vim(mixer="mamba2", class_token="none"),
    "vmamba-v0": vmamba(d_state=3),
    "vmamba-noz": vmamba(
        **{"d_state": 1, "ssm_ratio": 1.0, "gated": False, "conv_bias": False},
        **{"float32_scan": False, "mlp_ratio": 2.0, "stem": "convolutions"},
        **{"downsample": "conv3x3", "positions": True},
    ),
    "vmamba-s4d": vmamba(mixer="s4d", mixer_options={"d_state": 4}),
    "vmunet": Case(
        lambda info: VMUNet(
            VMUNetConfig(dims=(16, 24, 32), depths=(1, 2, 1), depths_decoder=(1, 1, 2), d_state=4),
            info,
        ),
        least=1,
        sizes=((32, 32), (40, 24), (1, 3), (33, 47)),
    ),
    "vmunet_patch2_s4d": Case(
        lambda info: VMUNet(
            VMUNetConfig(
                dims=(16, 24),
                depths=(1, 1),
                depths_decoder=(1, 1),
                patch_size=2,
                mixer="s4d",
                mixer_options={"d_state": 4},
            ),
            info,
        ),
        least=1,
    ),
}
