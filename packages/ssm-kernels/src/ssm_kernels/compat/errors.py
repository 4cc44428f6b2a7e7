"""Errors of the stand-ins."""

from __future__ import annotations

from ..errors import SsmError


class ShadowError(SsmError, ImportError):
    """A package that the stand-ins would hide is installed or imported already."""


class ProviderError(SsmError, ImportError):
    """An entry point of the group `ssm_kernels.compat` cannot be used."""
