"""Keys of options, checked against the dataclass that they are for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from ssm_core.errors import UnknownNameError

T = TypeVar("T")


def check_keys(cls: type, options: Mapping[str, Any], where: str) -> None:
    """Raise `UnknownNameError` for the first key that the dataclass `cls` does not have."""
    fields = [f.name for f in dataclasses.fields(cls) if f.init]
    for key in options:
        if key not in fields:
            raise UnknownNameError.of("key", f"{where}.{key}", [f"{where}.{f}" for f in fields])


def with_fields(config: T, values: Mapping[str, Any], where: str) -> T:
    """Return the dataclass `config` with some fields replaced.

    Raises:
        UnknownNameError: a field that it does not have.
        ConfigError: a value that it refuses.
    """
    check_keys(type(config), values, where)
    new: T = dataclasses.replace(config, **values)  # type: ignore[type-var]
    return new
