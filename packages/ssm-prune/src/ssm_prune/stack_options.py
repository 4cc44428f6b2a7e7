"""The methods that `prune.stack` lists, checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ssm_core.config import make_config
from ssm_core.errors import ConfigError, UnknownNameError
from ssm_prune.loader import Method, PrunePlugins
from ssm_prune.options import PruneOptions

Chosen = tuple[Method, PruneOptions]


def stacked_methods(method: Method, options: PruneOptions, plugins: PrunePlugins) -> list[Chosen]:
    """The further methods of a run with their options, in order.

    Args:
        method, options: the first method, and the options with the list.
    Raises:
        ConfigError: an entry that cannot be read, or methods that do not go together.
        DuplicateNameError: an ambiguous name.
    """
    force = options.force_resume
    found = [_read(number, entry, force, plugins) for number, entry in enumerate(options.stack)]
    _check_together([(method, options), *found])
    return found


def _read(number: int, entry: Mapping[str, Any], force: bool, plugins: PrunePlugins) -> Chosen:
    where = f"prune.stack[{number}]"
    values = dict(entry)
    name = values.pop("method", None)
    if not isinstance(name, str):
        raise ConfigError(
            f"{where} has method {name!r}, expected the name of one (ssm-train list pruners)"
        )
    if "stack" in values:
        raise ConfigError(f"{where} has a stack of its own, expected one list for all methods")
    qualified = {m.qualified_name: m for offers in plugins.methods.values() for m in offers}
    if name not in plugins.methods and name not in qualified:
        raise UnknownNameError.of(f"{where}.method", name, plugins.methods)
    method = qualified.get(name) or plugins.method(name)
    read = make_config(method.spec.options, values, where)
    return method, dataclasses.replace(read, force_resume=force)


def _check_together(chosen: Sequence[Chosen]) -> None:
    for number, (method, options) in enumerate(chosen):
        name, before = method.spec.name, chosen[:number]
        if name in (other.spec.name for other, _ in before):
            raise ConfigError(f"prune.stack has {name!r} again, expected each method once")
        kinds = [its.units for _, its in before]
        if options.units != "weights" and "weights" in kinds:
            raise ConfigError(
                f"prune.stack has {name!r} with units {options.units} after a method that prunes "
                "weights, expected whole units first"
            )
        if options.units != "weights" and options.units in kinds:
            raise ConfigError(
                f"prune.stack has {name!r} with units {options.units} as a method before it, "
                "expected another kind of units"
            )
        if options.remove and not all(its.remove for _, its in before):
            raise ConfigError(
                f"prune.stack has {name!r} with remove True after a method without, expected "
                "those that take units out first"
            )
