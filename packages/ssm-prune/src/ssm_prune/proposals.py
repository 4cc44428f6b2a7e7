"""What a method answers, and how the host carries it out: checked, applied and put on record."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ssm_prune.errors import ProposalError
from ssm_prune.pruner import MasksChanged, Materialise, Proposal
from ssm_prune.taken_out import take_out

if TYPE_CHECKING:
    from ssm_prune.context import PruneContext
    from ssm_prune.controller import Controller


def asked(controller: Controller, question: Callable[[PruneContext], Any]) -> Any:
    """The method's answer, that of the first process if there are several.

    What the method does wrong is reported with its name and the step.
    """
    ctx = controller.ctx
    ctx.notes.clear()
    try:
        answer = ctx.processes.of_first(question(ctx))
    except ProposalError as error:
        raise named(controller, error) from error
    for values in ctx.notes:
        note(controller, values)
    return answer


def act(controller: Controller, answer: Proposal | Materialise | None) -> None:
    """Do what the method wants, unless a check of a plugin stops it."""
    proposal = answer.proposal if isinstance(answer, Materialise) else answer
    done = proposal is None or carry_out(controller, proposal)
    if isinstance(answer, Materialise) and done:
        take_out(controller)


def carry_out(controller: Controller, proposal: Proposal) -> bool:
    """Take over new masks; False if a check of a plugin stopped them."""
    ctx, targets, hook = controller.ctx, controller.targets, controller.plugins.hook
    try:
        targets.check(proposal)
    except ProposalError as error:
        raise named(controller, error) from error
    found = hook.ssm_prune_check(proposal=proposal, ctx=ctx)
    problems = ctx.processes.of_first([problem.message for answer in found for problem in answer])
    if problems:
        controller.vetoes.append({"step": ctx.step, "problems": problems})
        return False
    targets.replace(proposal)
    ctx.processes.check_equal(targets.store.digest(), f"the masks after step {ctx.step}")
    event = _event(controller, ctx.target if proposal.target is None else proposal.target)
    _record(controller, event, {})
    hook.ssm_prune_masks_changed(event=event)
    return True


def named(controller: Controller, error: ProposalError) -> ProposalError:
    """The error with the method and the step in front."""
    method = controller.method
    return ProposalError(
        f"pruning method {method.spec.name!r} of {method.provider}, step {controller.ctx.step}: "
        f"{error}"
    )


def note(controller: Controller, values: Mapping[str, Any]) -> None:
    """Put values into the history, beside what the masks are now."""
    _record(controller, _event(controller, controller.pruner.promised(controller.ctx)), values)


def _event(controller: Controller, target: float) -> MasksChanged:
    store = controller.store
    return MasksChanged(controller.ctx.step, target, store.total_pruned, store.total)


def _record(controller: Controller, event: MasksChanged, values: Mapping[str, Any]) -> None:
    store, entry = controller.store, dataclasses.asdict(event)
    # one number per tensor, in order: names in each entry would fill checkpoints
    entry["removed"] = [store.pruned(name) for name in store.shapes]
    controller.history.append({**entry, **values})
