"""`ssm-prune plan`: what would be pruned, and why the rest not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ssm_core.cli.parsing import OneLineParser
from ssm_core.cli.tables import print_columns
from ssm_core.plugins import plugin_host
from ssm_core.train.checkpoint import write_text
from ssm_prune.cli.dry_run import Subject, find_subject, start_methods
from ssm_prune.cli.export import remove
from ssm_prune.controller import Controller
from ssm_prune.costs import Costs, count_costs
from ssm_prune.errors import PruneError
from ssm_prune.loader import prune_plugins
from ssm_prune.models import MASKED, REMOVED, verdicts_of
from ssm_prune.policy import Verdict
from ssm_prune.select import target_count

WEIGHTS_ONLY = (
    "masked: as many parameters and operations as before; zeros are stored and multiplied like "
    "any other number"
)


def plan_command(words: Sequence[str]) -> int:
    """Show the plan of `RUN|RECIPE [--prune METHOD --prune.* ...]`."""
    parser = OneLineParser(
        prog="ssm-prune plan",
        description="What would be pruned, and why the rest not; nothing is trained.",
        allow_abbrev=False,
    )
    parser.add_argument("subject", metavar="RUN|RECIPE", help="a run folder, or a recipe's name")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the plan there")
    parser.epilog = "Further options as in `ssm-train fit`: --prune METHOD, --prune.*, --model.*"
    arguments, rest = parser.parse_known_args(list(words))
    plan = make_plan(find_subject(plugin_host(), [arguments.subject, *rest]))
    _print(plan)
    if arguments.json is not None:
        write_text(arguments.json, json.dumps(plan, indent=2) + "\n")
    return 0


def make_plan(subject: Subject) -> dict[str, Any]:
    """The plan as JSON values.

    Raises:
        PruneError, ConfigError: what a training with these options would fail with at its start.
    """
    before = count_costs(subject.model, subject.info)
    if "prune" not in subject.config.specs:
        verdicts = verdicts_of(subject.model, prune_plugins())
        limits = {n: verdicts[n].limit(p.numel()) for n, p in subject.model.named_parameters()}
        tensors = _tensors(subject, verdicts, limits)
        return {"method": None, "tensors": tensors, "before": asdict(before)}
    controller, *others = start_methods(subject.config, subject.model, subject.length)
    units = controller.units
    shapes = controller.store.shapes
    limits = {n: controller.ctx.limits.get(n, shape.numel()) for n, shape in shapes.items()}
    total, sparsity = controller.store.total, controller.schedule.sparsity
    if units is not None:
        total = units.total
    return {
        "method": controller.method.spec.name,
        "provider": controller.method.provider,
        "tensors": _tensors(subject, controller.verdicts, limits),
        "before": asdict(before),
        "units": controller.options.units,
        "prunable": total,
        "requested_sparsity": sparsity,
        "gone": target_count(sparsity, total),
        "mask_updates": _updates(controller),
        "stack": [_stacked(other) for other in others],
        **_after(subject, controller, before),
    }


def _tensors(
    subject: Subject, verdicts: Mapping[str, Verdict], limits: Mapping[str, int]
) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "shape": list(parameter.shape),
            "weights": parameter.numel(),
            "may_be_pruned": limits.get(name, 0) > 0,
            "cap": limits.get(name, 0) / max(1, parameter.numel()),
            "reason": verdicts[name].reason,
        }
        for name, parameter in subject.model.named_parameters()
    ]


def _stacked(controller: Controller) -> dict[str, Any]:
    return {
        "method": controller.method.spec.name,
        "provider": controller.method.provider,
        "units": controller.options.units,
        "requested_sparsity": controller.schedule.sparsity,
        "mask_updates": _updates(controller),
    }


def _updates(controller: Controller) -> dict[str, int]:
    schedule = controller.schedule
    return {"begin": schedule.begin, "end": schedule.end, "every": schedule.every}


def _after(subject: Subject, controller: Controller, before: Costs) -> dict[str, Any]:
    """Predicted costs: of masks the same, of units from removing those with the least weights."""
    if controller.units is None:
        return {"state": MASKED, "after": asdict(before), "note": WEIGHTS_ONLY}
    with torch.no_grad():
        scores = {name: parameter.abs() for name, parameter in controller.prunable()}
        chosen = controller.ctx.prune_lowest(scores, controller.schedule.sparsity).units
    masks = controller.units.parameter_masks(chosen)
    try:
        smaller = remove(subject.model, masks, prune_plugins()).model
    except PruneError as error:
        return {"state": MASKED, "after": asdict(before), "note": f"not predicted: {error}"}
    note = "removed: predicted by removing the units whose weights are smallest now"
    return {"state": REMOVED, "after": asdict(count_costs(smaller, subject.info)), "note": note}


def _print(plan: Mapping[str, Any]) -> None:
    rows = [("tensor", "shape", "weights", "may be pruned", "reason")]
    for tensor in plan["tensors"]:
        cap = "yes" if tensor["cap"] == 1 else f"up to {tensor['cap']:.0%}"
        shape = "x".join(map(str, tensor["shape"])) or "scalar"
        allowed = cap if tensor["may_be_pruned"] else "no"
        rows.append((tensor["name"], shape, f"{tensor['weights']:,}", allowed, tensor["reason"]))
    print_columns(rows)
    print()
    print_columns(_totals(plan))
    if "note" in plan:
        print(plan["note"])


def _totals(plan: Mapping[str, Any]) -> list[tuple[str, str]]:
    before = plan["before"]
    prunable = sum(t["weights"] for t in plan["tensors"] if t["may_be_pruned"])
    flops = "not counted: " + before["note"] if before["flops"] is None else f"{before['flops']:,}"
    rows = [("parameters", f"{before['parameters']:,}"), ("prunable weights", f"{prunable:,}")]
    rows.append(("operations per example (FLOPs)", flops))
    if plan["method"] is None:
        return rows
    times, after = plan["mask_updates"], plan["after"]
    rows += [
        ("method", f"{plan['method']} of {plan['provider']}"),
        ("mask updates", "from step {begin} to {end}, every {every}".format(**times)),
        ("requested sparsity", f"{plan['requested_sparsity']:.2%}"),
        (f"{plan['units']} that go", f"{plan['gone']:,} of {plan['prunable']:,}"),
        (f"parameters after ({plan['state']})", f"{after['parameters']:,}"),
    ]
    for other in plan["stack"]:
        what = f"{other['requested_sparsity']:.2%} of the {other['units']} that there are now"
        rows.append(
            (f"also {other['method']}", f"{what}, from {other['mask_updates']['begin']} on")
        )
    if after["flops"] is not None:
        rows.append((f"operations after ({plan['state']})", f"{after['flops']:,}"))
    return rows
