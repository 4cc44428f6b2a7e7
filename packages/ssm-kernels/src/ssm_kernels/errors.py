"""Errors a caller can act on: what was wrong, what was expected and what to do, in one line.

Every class also derives from the built-in exception Python users expect, so `except ValueError`
keeps working. The other packages of the family build their own errors on `SsmError`.
"""

from __future__ import annotations


class SsmError(Exception):
    """Base of every error that reports a mistake in the call or in the installation."""


class ArgumentError(SsmError, ValueError):
    """An option has a value the operator does not know."""


class ShapeError(SsmError, ValueError):
    """A tensor's shape does not fit; the message names the argument and the shape expected."""


class DTypeError(SsmError, TypeError):
    """An argument is not a tensor, or is a tensor of a type the operator cannot use."""


class DeviceError(SsmError, RuntimeError):
    """Tensors of one call lie on different devices."""


class BackendError(SsmError, RuntimeError):
    """A backend that was named explicitly is unknown or cannot run here."""
