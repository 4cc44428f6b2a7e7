"""Blocks whose units are removed and masked, and how to give them values that hide nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ssm_core import BiMamba, BiMambaConfig, Mamba, MambaConfig, Tower, TowerConfig
from ssm_core.block import Block
from ssm_prune.loader import PrunePlugins
from ssm_prune.unit_masks import UnitMasks


@dataclass(frozen=True)
class RemovalCase:
    """A module, the kind of units and an input.

    Attributes:
        make: builds a module that holds the block (a part is replaced in what holds it).
        kind: of units.
        input_shape: of its input.
        causal: also run it in steps.
    """

    make: Callable[[], nn.Module]
    kind: str
    input_shape: tuple[int, ...] = (2, 7, 16)
    causal: bool = True


def mamba(**options: object) -> Callable[[], nn.Module]:
    return lambda: Block(16, Mamba(16, MambaConfig(**options)))  # type: ignore[arg-type]


def bimamba(**options: object) -> Callable[[], nn.Module]:
    return lambda: Block(16, BiMamba(16, BiMambaConfig(**options)))  # type: ignore[arg-type]


def tower() -> nn.Module:
    return Tower(lambda: Mamba(16, MambaConfig(d_state=4)), TowerConfig(16, 3, mlp_hidden=24))


CASES = {
    "mamba-channels": RemovalCase(mamba(d_state=4, bias=True), "channels"),
    "mamba-channels-odd": RemovalCase(mamba(d_state=3, d_inner=21, conv_bias=False), "channels"),
    "mamba-states": RemovalCase(mamba(d_state=6), "states"),
    "bimamba-channels": RemovalCase(bimamba(d_state=4, bias=True), "channels", causal=False),
    "bimamba-states": RemovalCase(bimamba(d_state=5, layer_scale=0.5), "states", causal=False),
    "tower-channels": RemovalCase(tower, "channels"),
    "tower-blocks": RemovalCase(tower, "blocks"),
}


def with_random_values(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Random biases, gains and skips: zeros and ones would hide what leaks through them."""
    module = module.to(dtype)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim < 2 and not name.endswith("dt_proj.bias"):
                parameter.add_(0.3 * torch.randn_like(parameter))
            elif name.endswith("A_log") or name.endswith("A_b_log"):
                parameter.add_(0.2 * torch.randn_like(parameter))
            else:
                fan_in = parameter[0].numel()
                parameter.copy_(torch.randn_like(parameter) / fan_in**0.5)
    return module


def half_of_the_units(module: nn.Module, kind: str) -> tuple[UnitMasks, dict[str, Tensor]]:
    """The units of a module, and random ones of them to keep."""
    ask = PrunePlugins(load_entry_points=False).hook.ssm_prune_adapter
    units = UnitMasks(module, kind, ask)
    scores = {name: torch.rand_like(p) for name, p in module.named_parameters()}
    return units, units.choose(scores, 0.5, "layer")
