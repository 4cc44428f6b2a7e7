"""Arguments as public code gives them to the original mixers and their forks."""

from __future__ import annotations

from typing import Any

from ssm_core.errors import ConfigError
from ssm_core.layers.checks import one_of


def plain(size: Any) -> Any:
    """A size as an int, where it is one of numpy or another library; anything else as it is.

    Plans of networks (such as those of nnU-Net) hold numpy's numbers.
    """
    return size.__index__() if hasattr(size, "__index__") else size


def directions_of(bimamba_type: str, bimamba: bool | None, nslices: int | None) -> str:
    """The kind of directions that the arguments of different forks ask for.

    Raises:
        ConfigError: one that there is not, or two that differ.
    """
    if bimamba_type == "v3" or nslices is not None:
        raise ConfigError(
            "Mamba: bimamba_type 'v3' with nslices (SegMamba, a third scan across slices) is not "
            "there, expected 'none', 'v1' or 'v2'; use another type or SegMamba's own fork"
        )
    one_of("Mamba", "bimamba_type", bimamba_type, ("none", "v1", "v2"))
    if bimamba is None:
        return bimamba_type
    wanted = "v2" if bimamba else "none"
    if bimamba_type not in ("none", wanted):
        raise ConfigError(
            f"Mamba: bimamba is {bimamba}, but bimamba_type is {bimamba_type!r}; give one of them"
        )
    return wanted


def check_dt_init(dt_init: str) -> None:
    """Check how dt_proj.weight starts."""
    one_of("Mamba", "dt_init", dt_init, ("random", "constant"))
