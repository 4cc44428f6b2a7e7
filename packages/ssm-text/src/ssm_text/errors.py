"""Errors of this package; `ssm-train` prints them as one line and exits with 2."""

from __future__ import annotations

from ssm_core.errors import SsmError

__all__ = ["GenerationError", "TokenError"]


class TokenError(SsmError, ValueError):
    """Characters or ids that the vocabulary does not have, or ids in a wrong layout."""


class GenerationError(SsmError, RuntimeError):
    """A model that cannot produce text; says what came out of it."""
