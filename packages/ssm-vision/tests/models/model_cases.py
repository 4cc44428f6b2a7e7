"""Small models of every family, for the tests that all of them must pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ssm_core import DataInfo
from ssm_vision.models.image_model import ImageModel
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


def vmamba(**options: Any) -> Case:
    config = VMambaConfig(depths=(1, 2, 1), dims=(8, 16, 24), **options)
    return Case(lambda info: VMamba(config, info), least=config.least_pixels)


CASES: dict[str, Case] = {
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
