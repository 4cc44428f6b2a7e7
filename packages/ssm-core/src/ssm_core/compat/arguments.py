"""Arguments as public code gives them to the original mixers and their forks."""

from __future__ import annotations

from typing import Any

from ssm_core.layers.checks import one_of


def plain(size: Any) -> Any:
    """A size as an int, where it is one of numpy or another library; anything else as it is.

    Plans of networks (such as those of nnU-Net) hold numpy's numbers.
    """
    return size.__index__() if hasattr(size, "__index__") else size


def check_dt_init(dt_init: str) -> None:
    """Check how dt_proj.weight starts."""
    one_of("Mamba", "dt_init", dt_init, ("random", "constant"))
