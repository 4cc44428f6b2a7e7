"""Small models of every family, for the tests that all of them must pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from ssm_core import DataInfo
from ssm_vision.models.image_model import ImageModel
from ssm_vision.models.vim import Vim
from ssm_vision.models.vim_config import VimConfig

INFO = DataInfo(input_shape=(3, 32, 32), n_outputs=5)


class Case(NamedTuple):
    """A model of a thousand or so parameters."""

    build: Callable[[DataInfo], ImageModel]
    least: int
    """pixels of a side of the smallest image"""
    sizes: tuple[tuple[int, int], ...] = ((32, 32), (40, 24), (33, 47))
    """image sizes that must work"""


_VIM = VimConfig(
    patch_size=8, stride=8, embed_dim=16, depth=2, mixer_options={"d_state": 4, "layer_scale": 0.5}
)

CASES: dict[str, Case] = {
    "vim": Case(partial(Vim, _VIM), 8),
    "vim-overlapping": Case(partial(Vim, replace(_VIM, stride=4, class_token="double")), 8),
    "vim-max": Case(partial(Vim, replace(_VIM, class_token="none", pool="max")), 8),
    "vim-experiments": Case(
        partial(
            Vim,
            replace(
                _VIM, class_token="head", norm="layer", squeeze_excitation="mixer", depthwise=2
            ),
        ),
        8,
    ),
    "vim-mamba2": Case(
        partial(Vim, replace(_VIM, mixer="mamba2", mixer_options={}, class_token="none")), 8
    ),
}
