"""The model inside the files that training scripts write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: where scripts put the model, the trained weights before their moving average
CONTAINERS = ("model", "state_dict", "model_state_dict", "model_ema", "state_dict_ema")


def model_in(state_dict: Any, prefix: str) -> Any:
    """Return the model alone, without optimizer, epoch and the like.

    Args:
        prefix: that of the names wanted; where it begins with a container's name and a dot, as in
            "model_ema.", that container is returned, under its name.
    """
    if not isinstance(state_dict, Mapping):
        return state_dict  # whoever reads it says what is wrong
    inside: dict[str, Any] = {
        name: state_dict[name] for name in CONTAINERS if isinstance(state_dict.get(name), Mapping)
    }
    chosen = prefix.partition(".")[0]
    if chosen in inside:
        return {chosen: inside[chosen]}
    return next(iter(inside.values()), state_dict)
