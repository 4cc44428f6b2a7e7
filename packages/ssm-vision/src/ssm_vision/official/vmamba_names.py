"""Names and shapes of older VMamba checkpoints, brought to those of today."""

from __future__ import annotations

import re

from torch import Tensor

from ssm_core.official.tensors import Tensors

_OLD_NAMES = (
    (re.compile(r"^patch_embed\.proj\."), "patch_embed.0."),
    (re.compile(r"^patch_embed\.norm\."), "patch_embed.2."),
    (re.compile(r"^(layers\.\d+\.blocks\.\d+)\.ln_1\."), r"\1.norm."),
    (re.compile(r"^(layers\.\d+\.blocks\.\d+)\.self_attention\."), r"\1.op."),
    (re.compile(r"^(norm|head)\."), r"classifier.\1."),
)
_LINEAR = re.compile(r"\.(in_proj|out_proj|fc1|fc2|head)\.weight$")


def in_new_names(tensors: Tensors) -> Tensors:
    """Rename what the first release called otherwise, and lay 1x1 convolutions flat."""
    return {_renamed(name): _flat(name, value) for name, value in tensors.items()}


def _renamed(name: str) -> str:
    for old, new in _OLD_NAMES:
        name = old.sub(new, name)
    return name


def _flat(name: str, value: Tensor) -> Tensor:
    """A linear map, also where it was saved as a convolution of one pixel."""
    if _LINEAR.search(name) and value.shape[2:] == (1, 1):
        return value.flatten(1)
    return value
