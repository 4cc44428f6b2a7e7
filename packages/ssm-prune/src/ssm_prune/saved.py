"""What of a pruned run is in its checkpoint, and what must be the same when it is resumed."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ssm_core.errors import CheckpointError
from ssm_prune.loader import Method
from ssm_prune.options import PruneOptions
from ssm_prune.schedules import Schedule

if TYPE_CHECKING:
    from ssm_prune.controller import Controller


#: options that are no part of how one method prunes
APART = ("stack", "force_resume")
#: options without which the masks of a checkpoint have no meaning, forced or not
FIXED = frozenset({"units"})


def saved_state(controller: Controller) -> dict[str, Any]:
    """Everything a resumed run needs: tensors and JSON values."""
    units = controller.units
    return {
        **saved_settings(controller.method, controller.options, controller.schedule),
        "masks": controller.store.state_dict() if units is None else {},
        "units": {} if units is None else units.state_dict(),
        "removals": controller.removals,
        "level": controller.ctx.level,
        "metrics": controller.metrics,
        # after a removal the method is not asked again, and its tensors are of the old sizes
        "pruner": {} if controller.removals else controller.pruner.state_dict(),
        "rng": controller.ctx.rng.get_state(),
        "history": controller.history,
        "vetoes": controller.vetoes,
        "forced": controller.forced,
    }


def load_saved(controller: Controller, state: Mapping[str, Any]) -> None:
    """Take back what `saved_state` returned, after `Controller.start`.

    Raises:
        CheckpointError: saved by another method or version, or with other options.
    """
    now = saved_settings(controller.method, controller.options, controller.schedule)
    force = controller.options.force_resume
    changes = check_settings(state, now, force)
    controller.forced = [*state["forced"], *([changes] if changes else [])]
    store, units = controller.store, controller.units
    store.load_state_dict(state["masks"])
    controller.removals = list(state["removals"])
    if units is not None:
        units.load_state_dict(state["units"])
        store.replace(units.parameter_masks({}))
    controller.ctx.level = state["level"]
    controller.metrics = dict(state["metrics"])
    if not controller.removals:
        controller.pruner.load_state_dict(state["pruner"])
    controller.ctx.rng.set_state(state["rng"])
    controller.history = list(state["history"])
    controller.vetoes = list(state["vetoes"])


def saved_settings(method: Method, options: PruneOptions, schedule: Schedule) -> dict[str, Any]:
    """Method, provider and options for a checkpoint; times as steps, however they were given."""
    times = {key: getattr(schedule, key) for key in ("begin", "end", "every")}
    values = dataclasses.asdict(options) | times
    for key in APART:
        del values[key]
    return {
        "method": method.spec.name,
        "provider": method.provider,
        "settings": {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()},
    }


def check_settings(
    state: Mapping[str, Any], now: Mapping[str, Any], force: bool = False
) -> dict[str, Any]:
    """Compare those of a checkpoint with those of this run.

    Args:
        state, now: as `saved_settings` returns them; `state` may hold more.
        force: let version and options differ; what they mean for the masks so far is the user's.
    Returns:
        Option, or "provider", -> value before and now, of what differs; without `force` nothing.
    Raises:
        CheckpointError: saved by another method or version, or with other options.
    """
    old, new = (state["method"], state["provider"]), (now["method"], now["provider"])
    if old != new and not (force and old[0] == new[0]):
        raise CheckpointError(
            f"the checkpoint was pruned with {old[0]!r} of {old[1]}, this is {new[0]!r} of "
            f"{new[1]}: install {old[1]} to go on with that run, or start a new one"
        )
    saved, present = state["settings"], now["settings"]
    changes = {} if old == new else {"provider": [old[1], new[1]]}
    for key in sorted({*present, *saved}):
        if present.get(key) == saved.get(key):
            continue
        if not force or key in FIXED:
            raise CheckpointError(
                f"the checkpoint was pruned with {key} {saved.get(key)!r}, this run has "
                f"{present.get(key)!r}: resume with the options of the original run"
            )
        changes[key] = [saved.get(key), present.get(key)]
    return changes


def method_seed(seed: int, method: str) -> int:
    """A seed of a run and a method; the same in every process (Python's `hash` is not)."""
    digest = hashlib.sha256(f"{seed}:{method}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
