"""Checkpoints of JCruan519/VM-UNet: of the whole model ("vmunet." before every name) or its inside.

The whole model and its inside are different classes there, with arguments of their own names; both
are understood. The model made returns logits, also where the original returns a sigmoid of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from ssm_core import DataInfo
from ssm_core.errors import CheckpointError, ConfigError
from ssm_core.official.options import Fact, check_facts, check_names
from ssm_core.official.tensors import Tensors, listed
from ssm_vision.models.vmunet import VMUNet
from ssm_vision.models.vmunet_config import VMUNetConfig
from ssm_vision.models.vmunet_names import WRAPPER
from ssm_vision.official.strict import load_strictly

OWNER = "vmunet"
#: decide nothing about a model that is made from its tensors
WITHOUT_EFFECT = ("load_ckpt_path", "norm_layer", "use_checkpoint")
#: dropout, which no published training uses and which has no counterpart here
MUST_BE_ZERO = ("drop_rate", "attn_drop_rate")
ARGUMENTS = (
    "patch_size", "in_chans", "input_channels", "num_classes", "depths", "depths_decoder", "dims",
    "dims_decoder", "d_state", "patch_norm", "drop_path_rate", *MUST_BE_ZERO, *WITHOUT_EFFECT,
)  # fmt: skip
STEM, NORM, HEAD = "patch_embed.proj.weight", "patch_embed.norm.weight", "final_conv.weight"
STATES = "layers.0.blocks.0.self_attention.A_logs"
STAGES = (2, 2, 9, 2)


def build(tensors: Tensors, config: Mapping[str, Any]) -> VMUNet:
    """Build the model of a state dict; see `ssm_vision.from_official`.

    Args:
        config: arguments of the original `VMUNet` (or of the `VSSM` inside). Only drop_path_rate is
            not in the tensors; its default is 0.2 for the whole model and 0.1 for the inside.
    """
    check_names(OWNER, config, ARGUMENTS)
    for name in MUST_BE_ZERO:
        if config.get(name, 0) != 0:
            raise ConfigError(f"{OWNER}: {name} is {config[name]!r}, expected 0")
    whole = any(name.startswith(WRAPPER) for name in tensors)
    if whole:
        tensors = _unwrapped(tensors)
    facts = _facts(tensors)
    check_facts(OWNER, _in_full(config), facts, tensors)
    found: dict[str, Any] = {name: fact.value for name, fact in facts.items()}
    options = VMUNetConfig(
        d_state=found["d_state"],
        dims=tuple(found["dims"]),
        depths=tuple(found["depths"]),
        depths_decoder=tuple(found["depths_decoder"]),
        patch_size=found["patch_size"],
        patch_norm=found["patch_norm"],
        drop_path=config.get("drop_path_rate", 0.2 if whole else 0.1),
    )
    size = 8 * options.multiple
    info = DataInfo((found["in_chans"], size, size), found["num_classes"])
    return load_strictly(OWNER, VMUNet(options, info), tensors)


def _unwrapped(tensors: Tensors) -> Tensors:
    """The tensors without the prefix that all of them have."""
    odd = [name for name in tensors if not name.startswith(WRAPPER)]
    if odd:
        raise CheckpointError(f"{OWNER}: names without the prefix {WRAPPER!r}: {listed(odd)}")
    return {name.removeprefix(WRAPPER): tensor for name, tensor in tensors.items()}


def _facts(tensors: Tensors) -> dict[str, Fact]:
    """What the tensors say about the arguments of the constructors."""
    needed = [STEM, HEAD, STATES]
    absent = [name for name in needed if name not in tensors]
    if absent:
        raise CheckpointError(
            f"{OWNER}: missing {listed(absent)}: not a VM-UNet, or one under a prefix (prefix=..)"
        )
    down, last = _depths(tensors, "layers")
    up, last_up = _depths(tensors, "layers_up")
    if len(down) != len(up) or 0 in down + up:
        raise CheckpointError(
            f"{OWNER}: blocks of the stages are {down} down and {up} up, expected one or more in "
            "each and as many stages down as up"
        )
    dims = [len(tensors[STEM])]
    for i in range(len(down) - 1):
        merging = tensors.get(f"layers.{i}.downsample.reduction.weight")
        dims.append(2 * dims[-1] if merging is None else len(merging))
    in_chans = Fact(tensors[STEM].shape[1], STEM)
    return {
        "patch_size": Fact(tensors[STEM].shape[2], STEM),
        "in_chans": in_chans,
        "input_channels": in_chans,
        "num_classes": Fact(len(tensors[HEAD]), HEAD),
        "d_state": Fact(tensors[STATES].shape[1], STATES),
        "depths": Fact(down, last),
        "depths_decoder": Fact(up, last_up),
        "dims": Fact(dims, STEM),
        "dims_decoder": Fact(dims[::-1], STEM),  # skips are added: the widths must be the same
        "patch_norm": Fact(NORM in tensors, NORM),
    }


def _depths(tensors: Tensors, part: str) -> tuple[list[int], str]:
    """Blocks of every stage, and the name of a tensor in the last block."""
    places = {}
    for name in tensors:
        match = re.match(rf"{part}\.(\d+)\.blocks\.(\d+)\.", name)
        if match:
            places[int(match[1]), int(match[2])] = name
    if not places:
        raise CheckpointError(f"{OWNER}: missing {part}.0.blocks.0.*")
    stages = 1 + max(stage for stage, _ in places)
    depths = [1 + max((j for s, j in places if s == i), default=-1) for i in range(stages)]
    return depths, places[max(places)]


def _in_full(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with their short forms written out: a width that doubles, no state size."""
    full = {k: list(v) if isinstance(v, tuple) else v for k, v in config.items()}
    stages = range(len(full.get("depths", STAGES)))
    if isinstance(full.get("dims"), int):
        full["dims"] = [full["dims"] * 2**i for i in stages]
    if isinstance(full.get("dims_decoder"), int):
        full["dims_decoder"] = [full["dims_decoder"] // 2**i for i in stages]
    if "d_state" in full and full["d_state"] is None:
        full["d_state"] = math.ceil(full.get("dims", [96])[0] / 6)
    return full
