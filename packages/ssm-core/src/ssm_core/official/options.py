"""What a caller says about a checkpoint beside its tensors, checked against them."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from ssm_core.errors import ConfigError, UnknownNameError
from ssm_core.official.tensors import Tensors

_PYTHON_WORDS = {"True": True, "False": False, "None": None}


class Fact(NamedTuple):
    """An option that the tensors decide."""

    value: object
    source: str
    """the tensor that says so; if it is not there, that is what says so"""


def plain(value: Any) -> Any:
    """Return a value as it was before it was written as text: "16" is 16, '"dplr"' is "dplr"."""
    if not isinstance(value, str):
        return value
    if value in _PYTHON_WORDS:
        return _PYTHON_WORDS[value]
    try:
        return json.loads(value)
    except ValueError:
        return value


def check_names(owner: str, given: Mapping[str, Any], known: Collection[str]) -> None:
    """Raise `UnknownNameError` for the first option that is not known."""
    for name in given:
        if name not in known:
            raise UnknownNameError.of(f"option of from_official({owner!r}, ..)", name, known)


def check_facts(
    owner: str, given: Mapping[str, Any], facts: Mapping[str, Fact], tensors: Tensors
) -> None:
    """Check that no option says something else than the tensors.

    Raises:
        ConfigError: names the option and the tensor that contradicts it.
    """
    for name, fact in facts.items():
        if name not in given or _same(given[name], fact.value):
            continue
        if fact.source in tensors:
            reason = f"{fact.source} of shape {tuple(tensors[fact.source].shape)}"
        else:
            reason = f"a state dict without {fact.source}"
        raise ConfigError(
            f"{owner}: {name} is {given[name]!r}, but {reason} makes it {fact.value!r}"
        )


def fields_of(owner: str, given: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return the given options under the names that ours have.

    Args:
        names: name of an option -> field of our configuration.
    Raises:
        ConfigError: two names of one field, with different values.
    """
    fields: dict[str, Any] = {}
    first: dict[str, str] = {}
    for name, field in names.items():
        if name not in given:
            continue
        if field in fields and fields[field] != given[name]:
            raise ConfigError(
                f"{owner}: {name} is {given[name]!r}, but {first[field]}, another name of it, "
                f"is {fields[field]!r}"
            )
        fields[field] = given[name]
        first.setdefault(field, name)
    return fields


def _same(given: object, value: object) -> bool:
    """Equal, and both truth values or none."""
    return given == value and isinstance(given, bool) == isinstance(value, bool)
