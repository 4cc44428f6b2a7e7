"""Give parts of a model other sizes than its configuration says: what structural pruning leaves.

    apply_sizes(model, {"tower.layers.0.mixer": {"d_inner": 96, "d_state": 8},
                        "tower.layers": {"kept": [0, 1, 3]}})

A layer is replaced by a new one of its class whose configuration has the given fields; of a list of
blocks those at the places `kept` stay. The model remembers what was applied, weights files and
checkpoints carry it, and who loads them gets a model of these sizes: an ordinary one, built from
ordinary layers, that needs nothing of what made it small.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import torch
from torch import nn

from ssm_core.errors import CheckpointError, ConfigError

Sizes: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Module name -> fields of its configuration, or for a list of blocks {"kept": places}."""

KEPT = "kept"
#: key in the metadata of weights files
METADATA_KEY = "sizes"
_ATTRIBUTE = "applied_sizes"


def apply_sizes(model: nn.Module, sizes: Sizes) -> nn.Module:
    """Resize parts of `model` in place; the new parts have new, untrained parameters.

    Args:
        sizes: names are those before the call, so that the order does not matter.
    Returns:
        `model`, which `applied_sizes` describes.
    Raises:
        ConfigError: no such part, one that has no sizes, or sizes that it refuses; the model is
            then as it was.
    """
    parts = {name: _part(model, name) for name in sizes}
    lists = {name: part for name, part in parts.items() if isinstance(part, nn.ModuleList)}
    kept = {name: _kept(name, blocks, sizes[name]) for name, blocks in lists.items()}
    new = {n: _resized(n, part, sizes[n]) for n, part in parts.items() if n not in lists}
    for name, part in new.items():
        _replace(model, name, part)
    for name, blocks in lists.items():
        modules = [blocks[place] for place in kept[name]]
        del blocks[:]
        blocks.extend(modules)
    plain = {name: dict(values) for name, values in sizes.items()}
    setattr(model, _ATTRIBUTE, [*applied_sizes(model), plain])
    return model


def applied_sizes(model: nn.Module) -> list[Sizes]:
    """Everything that `apply_sizes` did to `model`, in order; JSON values."""
    return list(getattr(model, _ATTRIBUTE, ()))


def replay_sizes(model: nn.Module, steps: Iterable[Sizes]) -> nn.Module:
    """Do to `model` what `applied_sizes` returned for another one, and return it."""
    for sizes in steps:
        apply_sizes(model, sizes)
    return model


def sizes_in(metadata: Mapping[str, str], where: object) -> list[Sizes]:
    """Read what a weights file says about the sizes of its model.

    Raises:
        CheckpointError: it is damaged.
    """
    try:
        steps = json.loads(metadata.get(METADATA_KEY, "[]"))
    except ValueError:
        steps = None
    if not isinstance(steps, list) or not all(isinstance(sizes, dict) for sizes in steps):
        raise CheckpointError(f"{where}: its {METADATA_KEY!r} are damaged, expected a JSON list")
    return steps


def sizes_metadata(model: nn.Module) -> dict[str, str]:
    """The entry of a weights file's metadata; empty for a model as its configuration says."""
    steps = applied_sizes(model)
    return {METADATA_KEY: json.dumps(steps)} if steps else {}


def _part(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError:
        raise ConfigError(
            f"sizes: the {type(model).__name__} has no part {name!r}: they are of another model"
        ) from None


def _resized(name: str, part: nn.Module, values: Mapping[str, Any]) -> nn.Module:
    resized = getattr(part, "resized", None)
    if resized is None:
        raise ConfigError(
            f"sizes: {name} is a {type(part).__name__}, which cannot be given other sizes; "
            "expected a part with a method `resized`"
        )
    # initial values are overwritten by trained ones: they must not move the run's generator
    with torch.random.fork_rng(devices=[]):
        new: nn.Module = resized(values)
    return _like(part, new)


def _like(old: nn.Module, new: nn.Module) -> nn.Module:
    """Give every tensor of `new` the type and place of its namesake in `old`."""
    before = dict(old.named_parameters()) | dict(old.named_buffers())
    any_old = next(iter(before.values()), torch.empty(0))
    new.to(any_old.device)
    for name, parameter in new.named_parameters():
        model = before.get(name, any_old)
        parameter.data = parameter.data.to(model.device, model.dtype)
        parameter.requires_grad_(model.requires_grad)
    for name, buffer in new.named_buffers():
        buffer.data = buffer.data.to(before.get(name, buffer).dtype)
    return new.train(old.training)


def _replace(model: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    model.get_submodule(parent).add_module(child, new)


def _kept(name: str, blocks: nn.ModuleList, values: Mapping[str, Any]) -> list[int]:
    kept = values.get(KEPT)
    if (
        set(values) != {KEPT}
        or not isinstance(kept, list | tuple)
        or list(kept) != sorted(set(kept))
        or not set(kept) <= set(range(len(blocks)))
    ):
        raise ConfigError(
            f"sizes: {name} is given {dict(values)}, expected {{'{KEPT}': places}} with ascending "
            f"places from 0 to {len(blocks) - 1}"
        )
    return list(kept)
