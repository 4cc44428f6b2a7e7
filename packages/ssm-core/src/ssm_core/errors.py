"""Errors a user can cause and fix. `ssm-train` prints them as one line and exits with 2.

Every message says what was wrong, what was expected and what to do next.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from ssm_kernels.errors import SsmError

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DuplicateNameError",
    "PluginLoadError",
    "SsmError",
    "UnknownNameError",
    "nearest",
]


class ConfigError(SsmError, ValueError):
    """A configuration value or key that cannot be used."""


class UnknownNameError(ConfigError):
    """A recipe, model, dataset, plugin or key that nobody registered."""

    @classmethod
    def of(cls, kind: str, name: str, known: Iterable[str], hint: str = "") -> UnknownNameError:
        """Build the usual message: the unknown name, then the nearest valid ones."""
        known = sorted(known)
        close = nearest(name, known)
        if close:
            tail = "did you mean " + " or ".join(repr(c) for c in close) + "?"
        elif known:
            tail = "known: " + ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
        else:
            tail = "none is installed"
        return cls(f"unknown {kind} {name!r}: {tail}{' ' + hint if hint else ''}")


class DuplicateNameError(SsmError):
    """Two plugins offer the same name; both are named."""


class PluginLoadError(SsmError):
    """A plugin that was asked for cannot be loaded; names its distribution and its error."""


class DataError(SsmError):
    """Data that is missing or unreadable; says where it was looked for and how to get it."""


class CheckpointError(SsmError):
    """A checkpoint that is missing, damaged or of another run; names the file."""


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The valid names most like `name`, best first; empty when none is similar.

    Dotted names are compared by their last part within the same section first, because a long
    common beginning makes everything look alike.
    """
    known = list(known)
    head, dot, tail = name.rpartition(".")
    if dot:
        tails = {k.rpartition(".")[2]: k for k in known if k.rpartition(".")[0] == head}
        close = difflib.get_close_matches(tail, tails, n=count, cutoff=0.6)
        if close:
            return [tails[c] for c in close]
    return difflib.get_close_matches(name, known, n=count, cutoff=0.6)
