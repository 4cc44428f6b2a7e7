"""Strict typed configuration from mappings: unknown keys are errors that name the nearest key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from ssm_core.errors import ConfigError
from ssm_core.keys import check_keys

T = TypeVar("T")


def make_config(cls: type[T], options: Mapping[str, Any], where: str) -> T:
    """Build the dataclass `cls` from `options`, checking every key and every type.

    Args:
        cls: a dataclass; nested dataclass fields take nested mappings.
        options: field name -> value, as read from YAML.
        where: dotted place shown in errors, e.g. "model.mixer_options".
    Raises:
        UnknownNameError: a key that `cls` does not have; names the nearest ones.
        ConfigError: a value of the wrong type, or one that `cls` itself refuses.
    """
    from jsonargparse import ArgumentError, ArgumentParser

    check_keys(cls, options, where)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls, "it")
    try:
        return parser.instantiate(parser.parse_object({"it": dict(options)})).it
    except ArgumentError as error:
        raise ConfigError(parse_message(error).replace('"it.', f'"{where}.')) from None
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """An error's text on one line."""
    return " ".join(str(error).split())


def parse_message(error: BaseException) -> str:
    """A parser's error for people: without the words for programmers around a key and a type."""
    text = one_line(error).replace('Parser key "', '"')
    return re.sub(r"Expected a (?:<class '(\w+)'>|typing\.)", r"expected \1", text)
