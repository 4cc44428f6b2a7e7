"""Image size and stride of a checkpoint of hustvl/Vim: only the number of positions shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssm_core.errors import ConfigError
from ssm_core.layers.checks import positive_int
from ssm_core.official.tensors import Tensors

_DEFAULT_IMAGE, _DEFAULT_STRIDE = 224, 16


def geometry(
    tensors: Tensors, given: Mapping[str, Any], patch: int, class_token: str
) -> tuple[tuple[int, int], int]:
    """The sides of the image and the stride.

    Left out, they are 224 and 16 as in the original if that fits the position embedding, else what
    fits it: the one stride that gives these positions at that image size, or the smallest image
    that gives them with that stride.

    Raises:
        ConfigError: nothing fits, or a value that is no size.
    """
    height, width = _two_sides("img_size", given.get("img_size", _DEFAULT_IMAGE))
    stride = positive_int("vim", "stride", given.get("stride", _DEFAULT_STRIDE))
    if "pos_embed" not in tensors or tensors["pos_embed"].dim() != 3:
        return (height, width), stride

    def patches(stride: int) -> int:
        return ((height - patch) // stride + 1) * ((width - patch) // stride + 1)

    rows = tensors["pos_embed"].shape[1]
    count = rows - {"none": 0, "double": 2}.get(class_token, 1)
    if patches(stride) == count:
        return (height, width), stride
    fitting = [s for s in range(1, max(height, width) + 1) if patches(s) == count]
    if "stride" not in given and len(fitting) == 1:
        return (height, width), fitting[0]
    side = int(count**0.5) if count > 0 else 0
    if "stride" in given and "img_size" not in given and side**2 == count > 0:
        return ((side - 1) * stride + patch,) * 2, stride
    raise ConfigError(
        f"vim: img_size {height} x {width}, patch_size {patch} and stride {stride} make "
        f"{patches(stride)} patches, but pos_embed has {rows} rows, {count} for patches: give the "
        "img_size and the stride of the original"
    )


def one_side(size: Any) -> int:
    """The side of a patch, given as a number or a pair."""
    height, width = _two_sides("patch_size", size)
    if height != width:
        raise ConfigError(f"vim: patch_size is {size!r}, expected the same on both sides")
    return height


def _two_sides(name: str, size: Any) -> tuple[int, int]:
    sides = tuple(size) if isinstance(size, tuple | list) else (size, size)
    if len(sides) != 2:
        raise ConfigError(f"vim: {name} is {size!r}, expected a number or a pair")
    return positive_int("vim", name, sides[0]), positive_int("vim", name, sides[1])
