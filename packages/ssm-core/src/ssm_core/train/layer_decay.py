"""Learning rates that fall from the head of a model to its stem.

Source: Clark et al. 2020, arXiv:2003.10555 (ELECTRA, fine-tuning); Bao et al. 2022,
arXiv:2106.08254 (BEiT). A layer k places below the top learns at lr decay^k: what is near the
image or the token changes least when a trained model is tuned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from torch import nn

from ssm_core.errors import ConfigError

Rates: TypeAlias = Callable[[str, float | None], float | None]
"""Name of a parameter and its own learning rate, if any -> its learning rate; None: the global."""


def own_rates(name: str, own: float | None) -> float | None:
    """Without layer decay: what the parameter's mark says."""
    return own


def decayed_rates(module: nn.Module, lr: float, decay: float) -> Rates:
    """The learning rates under layer decay; a rate of a parameter's own is scaled likewise.

    Args:
        module: says its order by a method `layer_of(name) -> int`: 0 for the stem, then counting
            up to the head.
        lr: the global learning rate.
        decay: factor from a layer to the one below it.
    Raises:
        ConfigError: the model has no such method.
    """
    layer_of = getattr(module, "layer_of", None)
    if layer_of is None:
        raise ConfigError(
            f"optim.layer_decay is {decay}, but {type(module).__name__} does not say the order of "
            "its layers (a method layer_of(name) -> int): set it to null"
        )
    layers = {name: int(layer_of(name)) for name, _ in module.named_parameters()}
    top = max(layers.values(), default=0)

    def rate(name: str, own: float | None) -> float | None:
        below = top - layers[name]
        return own if below == 0 else (lr if own is None else own) * decay**below

    return rate
