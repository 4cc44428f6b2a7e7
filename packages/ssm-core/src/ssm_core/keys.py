"""Keys of options, checked against the dataclass that they are for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ssm_core.errors import UnknownNameError


def check_keys(cls: type, options: Mapping[str, Any], where: str) -> None:
    """Raise `UnknownNameError` for the first key that the dataclass `cls` does not have."""
    fields = [f.name for f in dataclasses.fields(cls) if f.init]
    for key in options:
        if key not in fields:
            raise UnknownNameError.of("key", f"{where}.{key}", [f"{where}.{f}" for f in fields])
