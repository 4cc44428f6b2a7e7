"""At the end of a run: has the sparsity been reached that the method promised?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ssm_prune.errors import NotPrunedError

if TYPE_CHECKING:
    from ssm_prune.controller import Controller

#: how far below the requested sparsity a finished run may end
TOLERANCE = 0.01
#: history entries with one of these are notes of a method, not changes of masks
NOTES = frozenset({"level", "distances"})


def check_reached(controller: Controller) -> None:
    """Compare what is gone with what must be.

    Raises:
        NotPrunedError: less, by more than `TOLERANCE` and what the numbers of units that a block
            may keep take away; lists what blocked it.
    """
    asked = controller.pruner.promised(controller.ctx)
    slack = TOLERANCE
    if controller.removals:
        last = controller.removals[-1]
        asked = max(asked, last["asked"])
        slack += last["rounding"] / max(1, last["of"])
    elif controller.units is not None and controller.units.total:
        slack += controller.units.rounding / controller.units.total
    if controller.achieved < asked - slack:
        raise NotPrunedError(_message(controller, asked))


def blockers(vetoes: Sequence[Mapping[str, Any]]) -> str:
    """What stopped proposals, for an error message."""
    if not vetoes:
        return "no proposal was stopped"
    last = " | ".join(f"step {v['step']}: {'; '.join(v['problems'])}" for v in vetoes[-3:])
    return f"{len(vetoes)} proposals were stopped ({last})"


def _message(controller: Controller, asked: float) -> str:
    kind = "weights" if controller.units is None else controller.units.kind
    total = controller.removals[-1]["of"] if controller.removals else controller.ctx.total
    changes = sum(not NOTES & entry.keys() for entry in controller.history)
    return (
        f"asked to remove {asked:.1%} of {total} prunable {kind}, removed "
        f"{controller.achieved:.1%}: method {controller.method.spec.name!r} changed masks "
        f"{changes} times, {blockers(controller.vetoes)}"
    )
