"""Errors of pruning; `ssm-train` prints them as one line and exits with 2."""

from __future__ import annotations

from ssm_core.errors import SsmError


class PruneError(SsmError):
    """Pruning as asked for is impossible for this model or run."""


class ProposalError(PruneError):
    """A method proposed a mask that the host refuses; names method, tensor and reason."""


class NotPrunedError(PruneError):
    """The run is over and fewer weights were removed than asked for; names what blocked it."""
