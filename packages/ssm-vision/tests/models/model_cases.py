"""Small models of every family, for the tests that all of them must pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ssm_core import DataInfo
from ssm_vision.models.image_model import ImageModel
from ssm_vision.models.mambavision import MambaVision
from ssm_vision.models.mambavision_config import MambaVisionConfig

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


CASES: dict[str, Case] = {
    "mambavision": mambavision(),
    "mambavision-scales-sliding": mambavision(
        layer_scale=0.1, layer_scale_conv=0.1, attention_window=3
    ),
    "mambavision-s4d": mambavision(mixer="s4d", mixer_options={"d_state": 4}),
}
