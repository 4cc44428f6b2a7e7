"""The end of a level, and whether another may begin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssm_prune.errors import NotPrunedError, ProposalError
from ssm_prune.proposals import carry_out, named, note
from ssm_prune.pruner import Rewind
from ssm_prune.reached import blockers

if TYPE_CHECKING:
    from ssm_prune.controller import Controller


def end_level(controller: Controller) -> None:
    """Note what the level that ends now has come to; once, also if a resumed run ends it again."""
    level = controller.ctx.level
    if controller.points and not any(e.get("level") == level for e in controller.history):
        found = {"level": level, "sparsity": controller.achieved}
        note(controller, found | controller.metrics)


def accept_level(controller: Controller, rewind: Rewind) -> None:
    """Check what the method wants and take over the masks of the next level.

    Raises:
        ProposalError: the method broke a rule of the host.
        NotPrunedError: a check of a plugin stopped the masks.
    """
    if rewind.step not in controller.points:
        wrong = f"wants to go back to step {rewind.step}, which `rewind_points` did not name"
        raise named(controller, ProposalError(wrong))
    if not carry_out(controller, rewind.proposal):
        raise NotPrunedError(
            f"pruning method {controller.method.spec.name!r} cannot begin level "
            f"{controller.ctx.level + 1}: {blockers(controller.vetoes)}"
        )
