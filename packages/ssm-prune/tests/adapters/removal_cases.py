"""Blocks whose units are removed and masked, and how to give them values that hide nothing."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ssm_core import Tower, TowerConfig, build_mixer
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


def block(mixer: str, **options: object) -> Callable[[], nn.Module]:
    return lambda: Block(16, build_mixer(mixer, 16, options))


def tower(mixer: str = "mamba", n_layers: int = 3, **options: object) -> Callable[[], nn.Module]:
    config = TowerConfig(16, n_layers, mlp_hidden=24)
    return lambda: Tower(lambda: build_mixer(mixer, 16, options), config)


#: Mamba-2 with 8 heads of 16 channels in two groups
HEADS = {"headdim": 16, "expand": 8, "d_state": 8, "ngroups": 2, "bias": True}
#: everything that a head may have besides
FULL = {"D_has_hdim": True, "learnable_init_states": True, "d_ssm": 32, "expand": 3, "headdim": 8}

CASES = {
    "mamba-channels": RemovalCase(block("mamba", d_state=4, bias=True), "channels"),
    "mamba-channels-odd": RemovalCase(
        block("mamba", d_state=3, d_inner=21, conv_bias=False), "channels"
    ),
    "mamba-states": RemovalCase(block("mamba", d_state=6), "states"),
    "bimamba-channels": RemovalCase(
        block("bimamba", d_state=4, bias=True), "channels", causal=False
    ),
    "bimamba-states": RemovalCase(
        block("bimamba", d_state=5, layer_scale=0.5), "states", causal=False
    ),
    "mamba2-heads": RemovalCase(block("mamba2", **HEADS), "heads"),
    "mamba2-heads-full": RemovalCase(block("mamba2", d_state=8, **FULL), "heads"),
    "mamba2-heads-norm-first": RemovalCase(
        block("mamba2", norm_before_gate=True, **HEADS), "heads"
    ),
    "mamba2-heads-no-norm": RemovalCase(
        block("mamba2", rmsnorm=False, conv_bias=False, **HEADS), "heads"
    ),
    "mamba2-channels": RemovalCase(block("mamba2", **HEADS), "channels"),
    "mamba2-channels-full": RemovalCase(
        block("mamba2", d_state=4, **{**FULL, "headdim": 16}), "channels"
    ),
    "mamba2-channels-no-norm": RemovalCase(block("mamba2", rmsnorm=False, **HEADS), "channels"),
    "mamba2-states": RemovalCase(block("mamba2", **HEADS | {"d_state": 32}), "states"),
    "mamba2-states-full": RemovalCase(block("mamba2", d_state=32, **FULL), "states"),
    "mamba3-heads": RemovalCase(
        block("mamba3", d_state=8, expand=4, headdim=8, ngroups=2), "heads"
    ),
    "mamba3-heads-norm": RemovalCase(
        block("mamba3", d_state=8, headdim=8, is_outproj_norm=True), "heads"
    ),
    "mamba3-channels": RemovalCase(block("mamba3", d_state=8, headdim=16), "channels"),
    "s4d-states": RemovalCase(block("s4d", d_state=12, channels=2), "states"),
    "s4d-states-fixed-B": RemovalCase(
        block("s4d", d_state=10, train_B=False, init="lin", dt_tie=False, n_ssm=4), "states"
    ),
    "s4d-states-bidirectional": RemovalCase(
        block("s4d", d_state=12, bidirectional=True, disc="bilinear"), "states", causal=False
    ),
    "s5-states": RemovalCase(block("s5", d_state=32, blocks=2), "states"),
    "s5-states-all-stored": RemovalCase(
        block("s5", d_state=12, blocks=3, conj_sym=False, activation="full_glu"), "states"
    ),
    "s5-states-bidirectional": RemovalCase(
        block("s5", d_state=32, bidirectional=True), "states", causal=False
    ),
    "s5-states-one-C": RemovalCase(
        block("s5", d_state=32, bidirectional=True, C_init="complex_normal"),
        "states",
        causal=False,
    ),
    "attention-heads": RemovalCase(block("attention"), "heads"),
    "attention-heads-not-causal": RemovalCase(
        block("attention", causal=False, bias=False), "heads", causal=False
    ),
    "rnn-channels": RemovalCase(block("rnn", hidden=32), "channels"),
    "rnn-channels-relu": RemovalCase(block("rnn", project=True, nonlinearity="relu"), "channels"),
    "tower-channels": RemovalCase(tower(d_state=4), "channels"),
    "tower-blocks": RemovalCase(tower(d_state=4), "blocks"),
    "tower-blocks-bimamba": RemovalCase(tower("bimamba", layer_scale=1.0), "blocks", causal=False),
    "tower-blocks-mamba2": RemovalCase(tower("mamba2", d_state=8, bias=True), "blocks"),
    "tower-blocks-mamba3": RemovalCase(tower("mamba3", d_state=8), "blocks"),
    "tower-blocks-s4": RemovalCase(tower("s4", d_state=4, l_max=16), "blocks"),
    "tower-blocks-s4-no-map": RemovalCase(
        tower("s4", d_state=4, l_max=16, final_act=None), "blocks"
    ),
    "tower-blocks-s4d": RemovalCase(tower("s4d", d_state=4), "blocks"),
    "tower-blocks-s4d-no-map": RemovalCase(tower("s4d", d_state=4, final_act=None), "blocks"),
    "tower-blocks-s5": RemovalCase(tower("s5", d_state=8), "blocks"),
    "tower-blocks-s5-full": RemovalCase(
        tower("s5", d_state=8, activation="full_glu", bidirectional=True), "blocks", causal=False
    ),
    "tower-blocks-attention": RemovalCase(tower("attention"), "blocks"),
    "tower-blocks-rnn": RemovalCase(tower("rnn"), "blocks"),
    "tower-blocks-rnn-map": RemovalCase(tower("rnn", hidden=8), "blocks"),
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


@functools.cache
def _own_plugins() -> PrunePlugins:
    return PrunePlugins(load_entry_points=False)


def units_of(module: nn.Module, kind: str) -> UnitMasks:
    """The units that our own adapters find."""
    return UnitMasks(module, kind, _own_plugins().hook.ssm_prune_adapter)


def half_of_the_units(
    module: nn.Module, kind: str, rounded: bool = True
) -> tuple[UnitMasks, dict[str, Tensor]]:
    """The units of a module, and random ones of them to keep."""
    units = units_of(module, kind)
    if not rounded:
        units.groups = {n: replace(group, round_to=1) for n, group in units.groups.items()}
    scores = {name: torch.rand_like(p) for name, p in module.named_parameters()}
    return units, units.choose(scores, 0.5, "layer")
