"""Reads the files of a run by itself, so that a check does not trust what it checks.

Tensors and texts come from safetensors; how a checkpoint nests them and packs masks is written out
here once more, from the formats (`ssm_core.train.checkpoint`, `ssm_prune.masks`), on purpose.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ssm_core.errors import CheckpointError


@dataclass(frozen=True)
class SavedMasks:
    """What a checkpoint says about pruning.

    Attributes:
        gone: parameter -> True where any method has removed single weights.
        units: module -> True where the first method keeps the unit; only of modules that lost some.
        counts: per method on weights, how many its masks remove, and how many its last update did
            (None without one).
        weights, average: the checkpoint's own copies of the weights and of their moving average.
    """

    gone: dict[str, Tensor]
    units: dict[str, Tensor]
    counts: list[tuple[int, int | None]]
    weights: dict[str, Tensor]
    average: dict[str, Tensor]


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Every tensor of a safetensors file, and its metadata.

    Raises:
        CheckpointError: missing or damaged.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in list(file.keys())}
            return tensors, dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: damaged or not a safetensors file ({reason})") from error


def read_masks(path: Path) -> SavedMasks:
    """The masks of a run's checkpoint.

    Raises:
        CheckpointError: missing, damaged, or of a run without pruning.
    """
    tensors, metadata = read_tensors(path)
    try:
        tree = json.loads(metadata["tree"])
        state = tree["plugins"]["prune"]
        states = [state, *state["stack"]]
        masks = [_masks_of(one, tensors) for one in states]
        units = {n: tensors[x["tensor"]].bool() for n, x in _pairs(state.get("units") or {})}
        counts = [_counts(one, its) for one, its in zip(states, masks, strict=True)]
        weights = {name: tensors[node["tensor"]] for name, node in _pairs(tree["module"])}
        average = {name: tensors[node["tensor"]] for name, node in _pairs(tree.get("ema") or {})}
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise CheckpointError(f"{path}: holds no masks, or damaged ones ({error!r})") from error
    gone: dict[str, Tensor] = {}
    for name, mask in (pair for its in masks for pair in its.items()):
        gone[name] = gone[name] | mask if name in gone else mask
    return SavedMasks(gone, units, counts, weights, average)


def _masks_of(state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: _mask(node, tensors) for name, node in _pairs(state["masks"])}


def _counts(state: Mapping[str, Any], masks: Mapping[str, Tensor]) -> tuple[int, int | None]:
    """What the masks of a method remove, and what its last update of weights did."""
    over_units = bool(state.get("removals") or state.get("units"))
    history = [] if over_units else state["history"]
    last = int(history[-1]["pruned"]) if history else None
    return sum(int(mask.sum()) for mask in masks.values()), last


def _pairs(node: Any) -> list[tuple[str, Any]]:
    """A mapping is stored as an object, or as pairs where a key could be mistaken."""
    if isinstance(node, Mapping) and set(node) == {"items"}:
        return [(str(key), value) for key, value in node["items"]]
    return list(node.items())


def _mask(node: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Tensor:
    """Bit i of the mask is bit i mod 8 of byte i div 8, the lowest first; 1 is removed."""
    packed, shape = tensors[node["bits"]["tensor"]], torch.Size(node["shape"])
    place = torch.arange(shape.numel())
    bits = packed.to(torch.int64)[place // 8] >> (place % 8)
    return (bits & 1).bool().view(shape)
