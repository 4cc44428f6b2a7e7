"""Copies of functions that look some names up elsewhere than the originals do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import update_wrapper
from types import CellType, FunctionType
from typing import Any

from ..errors import BackendError


def undecorated(function: Callable[..., Any]) -> FunctionType:
    """The function below decorators that left a trace of it, as functools.wraps does."""
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    assert isinstance(function, FunctionType)
    return function


def rebind(function: Callable[..., Any], names: Mapping[str, Any]) -> FunctionType:
    """Copy a function, decorators included, so that its global names are found in `names` first.

    A module's other functions and a class's other instances go on as before, which a change of
    the module's names could not promise.

    Raises:
        BackendError: a decorator does not call the function in a way that can be seen.
    """
    assert isinstance(function, FunctionType)
    inner = getattr(function, "__wrapped__", None)
    if inner is None:
        return _copy(function, {**function.__globals__, **names}, function.__closure__)
    replaced = rebind(inner, names)
    cells = function.__closure__ or ()
    if not any(_holds(cell, inner) for cell in cells):
        raise BackendError(
            f"huggingface.accelerate: {function.__qualname__} is decorated in an unknown way; "
            "remove the decorator or run the model as it is"
        )
    closure = tuple(CellType(replaced) if _holds(cell, inner) else cell for cell in cells)
    copy = _copy(function, function.__globals__, closure)
    copy.__dict__["__wrapped__"] = replaced
    return copy


def _copy(
    function: FunctionType, scope: dict[str, Any], closure: tuple[CellType, ...] | None
) -> FunctionType:
    copy = FunctionType(function.__code__, scope, function.__name__, function.__defaults__, closure)
    copy.__kwdefaults__ = function.__kwdefaults__
    update_wrapper(copy, function)
    del copy.__dict__["__wrapped__"]
    return copy


def _holds(cell: CellType, content: object) -> bool:
    try:
        return cell.cell_contents is content
    except ValueError:  # an empty cell
        return False
