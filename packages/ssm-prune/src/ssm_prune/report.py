"""`prune_report.json`: what was asked for, what was done, and what the policy said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssm_core.train.checkpoint import write_text

if TYPE_CHECKING:
    from ssm_prune.controller import Controller


def write_report(controller: Controller, path: Path, step: int) -> None:
    """Write the report of a run that has come to `step`, atomically."""
    write_text(path, json.dumps(report(controller, step), indent=2) + "\n")


def report(controller: Controller, step: int) -> dict[str, Any]:
    """The report as a mapping of JSON values."""
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
        "tensors": [_tensor(controller, name) for name in controller.verdicts],
        "masked_tensors": list(store.shapes),
        "updates": controller.history,
        "removals": [
            {key: value for key, value in removal.items() if key != "sizes"}
            for removal in controller.removals
        ],
        "stopped_proposals": controller.vetoes,
    }


def _tensor(controller: Controller, name: str) -> dict[str, Any]:
    parameter = controller.model.get_parameter(name)
    verdict, removed = controller.verdicts[name], controller.store.pruned(name)
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
