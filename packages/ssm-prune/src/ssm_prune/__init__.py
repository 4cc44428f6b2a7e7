"""Pruning of state space models while they train: methods propose masks, the host does the rest.

A method is a `Pruner` class, offered as a `MethodSpec` by a function `ssm_prune_methods` marked
`@hookimpl`, in a package with an entry point in the group `ssm_prune.plugins`.
"""

from __future__ import annotations

from ssm_prune.artifact import Artifact
from ssm_prune.context import PruneContext
from ssm_prune.errors import NotPrunedError, ProposalError, PruneError
from ssm_prune.hookspecs import hookimpl, hookspec
from ssm_prune.options import PruneOptions
from ssm_prune.policy import Verdict
from ssm_prune.pruner import (
    MasksChanged,
    Materialise,
    MethodSpec,
    Problem,
    Proposal,
    Pruner,
    Rewind,
)
from ssm_prune.report_section import Section

__version__ = "0.1.0"

__all__ = [
    "Artifact",
    "MasksChanged",
    "Materialise",
    "MethodSpec",
    "NotPrunedError",
    "Problem",
    "Proposal",
    "ProposalError",
    "PruneContext",
    "PruneError",
    "PruneOptions",
    "Pruner",
    "Rewind",
    "Section",
    "Verdict",
    "hookimpl",
    "hookspec",
]
