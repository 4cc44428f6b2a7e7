"""Errors of the stand-ins."""

from __future__ import annotations

from typing import NoReturn

from ..errors import ShapeError, SsmError


class ShadowError(SsmError, ImportError):
    """A package that the stand-ins would hide is installed or imported already."""


class ProviderError(SsmError, ImportError):
    """An entry point of the group `ssm_kernels.compat` cannot be used."""


def explain_axes(error: ShapeError) -> NoReturn:
    """Raise an operator's error again, with the difference between its axes and the caller's."""
    raise ShapeError(
        f"{error} (these are the axes of ssm_kernels: the steps l come second, while the caller's "
        "come last)"
    ) from error
