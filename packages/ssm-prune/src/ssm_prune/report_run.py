"""The report of a run folder: `prune_report.json` completed, and the page `prune_report.html`.

What the host wrote (requested and achieved sparsity, verdicts, the history of the masks) is
completed by what can be read and measured from the folder alone: the costs of the saved model
beside those of the dense one, where it was trained, with which versions and seed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ssm_core.errors import CheckpointError, ConfigError, SsmError
from ssm_core.plugins import PluginHost, plugin_host
from ssm_core.train.checkpoint import write_text
from ssm_core.train.folder import (
    check_run_folder,
    processor,
    read_status,
    read_versions,
    versions,
)
from ssm_core.train.resolve import ResolvedConfig
from ssm_core.train.restore import load_run, read_config
from ssm_prune.costs import count_costs, example_input
from ssm_prune.errors import PruneError
from ssm_prune.latency import compare
from ssm_prune.loader import PrunePlugins, prune_plugins
from ssm_prune.models import DENSE, MASKED, REMOVED, build_dense
from ssm_prune.report_page import write_page

log = logging.getLogger(__name__)

REPORT = Path("prune_report.json")
PAGE = Path("prune_report.html")
REPETITIONS = 30
#: for the measurement at the end of a run, which nobody asked for
BUDGET_S = 2.0
NOTES = {
    DENSE: "Nothing was removed.",
    MASKED: "Masked weights are zero but still stored and multiplied: no gain in speed.",
    REMOVED: "Removed weights are no longer stored nor multiplied.",
}


def report_run(
    folder: Path, host: PluginHost | None = None, plugins: PrunePlugins | None = None
) -> dict[str, Any]:
    """Complete the report of a pruned run, write it and its page; returns it.

    Raises:
        ConfigError: not a run folder, or a run without pruning.
        CheckpointError: the report is damaged. (What is wrong with the weights is in the report.)
    """
    host, plugins = host or plugin_host(), plugins or prune_plugins()
    report = read_report(check_run_folder(folder))
    problems: list[str] = []
    report["problems"] = problems
    _try(problems, lambda: report.update(_origin(host, folder)))
    _try(problems, lambda: report.update(_measured(host, folder, report)))
    write_text(folder / REPORT, json.dumps(report, indent=2) + "\n")
    write_page(report, folder / PAGE, folder.resolve().name, plugins)
    return report


def report_quietly(folder: Path) -> None:
    """`report_run` at the end of a training, which it must not spoil: what fails is logged."""
    try:
        for problem in report_run(folder)["problems"]:
            log.warning("%s: %s", folder / PAGE, problem)
    except Exception as error:
        log.warning("%s was not written: %s", folder / PAGE, " ".join(str(error).split()))


def read_report(folder: Path) -> dict[str, Any]:
    """What prune_report.json of a run folder holds.

    Raises:
        ConfigError: there is none.
        CheckpointError: it is damaged.
    """
    path = folder / REPORT
    if not path.is_file():
        raise ConfigError(f"{folder}: the run was not pruned, or is not over (no {REPORT} in it)")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or not {"tensors", "updates"} <= content.keys():
            raise ValueError("not a pruning report")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged ({error}): train the run again") from error
    return content


def _try(problems: list[str], act: Any) -> None:
    try:
        act()
    except SsmError as error:
        problems.append(str(error))


def _origin(host: PluginHost, folder: Path) -> dict[str, Any]:
    """Which run this is, and where it was trained."""
    config, status = read_config(host, folder), read_status(folder)
    return {
        "recipe": config.recipe,
        "seed": config.trainer.seed,
        "trained": {
            "device": status.get("device") or _device_name(_device(config)),
            "precision": config.trainer.precision,
            **read_versions(folder),
        },
    }


def _measured(host: PluginHost, folder: Path, report: Mapping[str, Any]) -> dict[str, Any]:
    """Costs and latency of the dense model and of the saved one, and which rows are removed."""
    restored = load_run(folder, host=host)
    device = _device(restored.config)
    dense = build_dense(restored.config, restored.info).to(device)
    pruned = restored.module.to(device)
    before, after = (count_costs(model, restored.info) for model in (dense, pruned))
    tensors = _with_states(report["tensors"], dense, pruned)
    masked = MASKED if any(t["state"] == MASKED for t in tensors) else DENSE
    state = REMOVED if after.parameters < before.parameters else masked
    return {
        "state": state,
        "note": NOTES[state],
        "tensors": tensors,
        "costs": {"dense": asdict(before), "pruned": asdict(after)},
        "latency": _latency(dense, pruned, restored.info),
    }


def _latency(dense: nn.Module, pruned: nn.Module, info: Any) -> dict[str, Any]:
    """Measured at batch 1; with a note instead where the model cannot be run on data alone."""
    device = next(pruned.parameters()).device
    found: dict[str, Any] = {
        "device": _device_name(device),
        "threads": torch.get_num_threads(),
        "batch": 1,
    }
    found["versions"] = versions()
    try:
        inputs = example_input(dense, info, 1), example_input(pruned, info, 1)
    except PruneError as error:
        return {**found, "note": str(error)}
    return {**found, **asdict(compare((dense, pruned), inputs, REPETITIONS, BUDGET_S))}


def _with_states(
    rows: list[dict[str, Any]], dense: nn.Module, pruned: nn.Module
) -> list[dict[str, Any]]:
    """The rows of the tensors, each marked; of one that is gone only the state changes."""
    before, after = dict(dense.named_parameters()), dict(pruned.named_parameters())
    marked = []
    for row in rows:
        name = row["name"]
        smaller = name not in after or (name in before and after[name].shape != before[name].shape)
        state = REMOVED if smaller else MASKED if row["removed"] else DENSE
        weights = before[name].numel() if name in before else row["weights"]
        marked.append({**row, "state": state, "dense_weights": weights})
    return marked


def _device(config: ResolvedConfig) -> torch.device:
    """The kind of device the run was trained on, as far as this machine has it."""
    wanted = config.trainer.accelerator != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if wanted else "cpu")


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
