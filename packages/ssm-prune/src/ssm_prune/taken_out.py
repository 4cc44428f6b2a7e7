"""Masked units are taken out of the model and the optimizer of a run; its method rests then."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssm_prune.errors import PruneError
from ssm_prune.removal import remove_units, shrink_optimizer
from ssm_prune.targets import Targets

if TYPE_CHECKING:
    from ssm_prune.controller import Controller


def take_out(controller: Controller) -> None:
    """Take the masked units out, and tell what else holds tensors of the model.

    Raises:
        PruneError: single weights are pruned.
    """
    units, targets, model = controller.units, controller.targets, controller.model
    if units is None:
        raise PruneError(
            f"method {controller.method.spec.name!r} wants masked weights taken out of the model, "
            "expected whole units: add --prune.units channels (states, heads, blocks)"
        )
    before = dict(model.named_parameters())
    removal = remove_units(model, units.groups, units.keep)
    shrink_optimizer(controller.optimizer, removal, before, dict(model.named_parameters()))
    controller.removals.append(
        {
            "step": controller.ctx.step,
            "left": targets.total - targets.removed,
            "of": targets.total,
            "rounding": units.rounding,
            "asked": controller.pruner.promised(controller.ctx),
            "sizes": removal.sizes,
        }
    )
    hook = controller.plugins.hook
    controller.targets = controller.ctx.targets = Targets(model, controller.options, hook)
    if controller.on_removal is not None:
        controller.on_removal(removal)
