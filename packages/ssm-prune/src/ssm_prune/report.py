"""`prune_report.json`: what was asked for, what was done, and what the policy said."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssm_core.train.checkpoint import write_text
from ssm_prune.stack import removed_by_any

if TYPE_CHECKING:
    from ssm_prune.controller import Controller


def write_report(controllers: Sequence[Controller], path: Path, step: int) -> None:
    """Write the report of a run that has come to `step`, atomically."""
    write_text(path, json.dumps(report(controllers, step), indent=2) + "\n")


def report(controllers: Sequence[Controller], step: int) -> dict[str, Any]:
    """The report as a mapping of JSON values.

    It is about the first method; of those of `prune.stack` it has the same under `stack`, but
    weights are counted once, whichever of the methods has removed them.
    """
    first, *others = controllers
    shapes = {name: shape for one in controllers for name, shape in one.store.shapes.items()}
    return _of_method(first, step) | {
        "prunable_weights": sum(shape.numel() for shape in shapes.values()),
        "removed_weights": sum(removed_by_any(controllers, name) for name in shapes),
        "tensors": [_tensor(controllers, name) for name in first.verdicts],
        "stack": [_of_method(other, step) for other in others],
    }


def _of_method(controller: Controller, step: int) -> dict[str, Any]:
    method, schedule, store = controller.method, controller.schedule, controller.store
    return {
        "method": method.spec.name,
        "provider": method.provider,
        "state": "masked",
        "note": "Masked weights are zero but still stored and multiplied: no gain in speed.",
        "units": controller.options.units,
        "requested_sparsity": schedule.sparsity,
        "achieved_sparsity": controller.achieved,
        "prunable_weights": store.total,
        "removed_weights": store.total_pruned,
        "left_out_by_method": controller.ctx.left_out,
        "step": step,
        "schedule": {
            "begin": schedule.begin,
            "end": schedule.end,
            "every": schedule.every,
            "ramp": controller.options.ramp,
            "finished": step >= schedule.end,
        },
        "masked_tensors": list(store.shapes),
        "updates": controller.history,
        "removals": [
            {key: value for key, value in removal.items() if key != "sizes"}
            for removal in controller.removals
        ],
        "stopped_proposals": controller.vetoes,
        "forced_resumes": controller.forced,
    }


def _tensor(controllers: Sequence[Controller], name: str) -> dict[str, Any]:
    parameter = controllers[0].model.get_parameter(name)
    verdict, removed = controllers[0].verdicts[name], removed_by_any(controllers, name)
    return {
        "name": name,
        "shape": list(parameter.shape),
        "may_be_pruned": verdict.allow,
        "cap": verdict.cap if verdict.allow else 0.0,
        "reason": verdict.reason,
        "weights": parameter.numel(),
        "removed": removed,
        "sparsity": removed / max(1, parameter.numel()),
    }
