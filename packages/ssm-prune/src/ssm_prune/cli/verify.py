"""`ssm-prune verify RUN|FILE`: are the promises kept in the saved files?"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ssm_core.cli.parsing import OneLineParser
from ssm_core.cli.tables import print_columns
from ssm_core.errors import ConfigError, DuplicateNameError, UnknownNameError
from ssm_core.plugins import PluginHost, plugin_host
from ssm_core.train.folder import AVERAGE, LAST, read_info, read_status
from ssm_core.train.resolve import read_yaml, resolve
from ssm_core.train.restore import read_config
from ssm_prune.cli import checks
from ssm_prune.cli.dry_run import run_length, start_methods
from ssm_prune.cli.saved import read_masks, read_tensors
from ssm_prune.cli.targets import unpack_file, weights_of
from ssm_prune.cli.unit_checks import check_unit_sparsity, check_units
from ssm_prune.errors import PruneError
from ssm_prune.loader import prune_plugins
from ssm_prune.models import build_dense
from ssm_prune.policy import decide
from ssm_prune.steps import RunLength
from ssm_prune.unit_masks import UnitMasks

#: long enough for every time that a method's options may name
LENGTH = RunLength(10**9, 10**6)


def verify_command(words: Sequence[str]) -> int:
    """Check a run or a weights file; returns 1 and prints a line per failure if one is found."""
    parser = OneLineParser(
        prog="ssm-prune verify",
        description="Count zeros in the saved files of a pruned run; trusts no report.",
    )
    parser.add_argument("subject", type=Path, metavar="RUN|FILE", help="run folder, weights file")
    subject = parser.parse_args(list(words)).subject
    file = weights_of(subject)
    with tempfile.TemporaryDirectory() as scratch:
        folder = subject
        if subject.is_file():
            folder = Path(scratch)
            unpack_file(subject, folder)
        rows, failures = verify(plugin_host(), folder, file)
    for failure in failures:
        print(f"ssm-prune: verify: {file}: {failure}", file=sys.stderr)
    if failures:
        return 1
    print_columns(rows)
    return 0


def verify(host: PluginHost, folder: Path, file: Path) -> tuple[list[tuple[str, str]], list[str]]:
    """Check the weights `file` against what the run folder says it was trained with.

    Returns:
        What was found, and what is wrong.
    Raises:
        ConfigError: the run was not pruned.
        CheckpointError: a file is missing or damaged.
    """
    content = read_yaml(folder / "config.yaml")
    options = content.get("prune")
    if not isinstance(options, dict):
        raise ConfigError(f"{file}: its run was not pruned (no section `prune`): nothing to verify")
    tensors, metadata = read_tensors(file)
    dense = build_dense(read_config(host, folder), read_info(folder))
    asked = [options, *options.get("stack", ())]
    lifted = tuple(pattern for one in asked for pattern in one.get("allow_unsafe", ()))
    verdicts = decide(dense, prune_plugins().hook.ssm_prune_policy, lifted)
    saved = checks.Saved(dict(dense.named_parameters()), verdicts, tensors, metadata)
    found = checks.Findings()
    checks.check_sizes(saved, found)
    model = checks.load(host, folder, found)
    masks = read_masks(folder / LAST) if (folder / LAST).is_file() else None
    requested = _requested(host, folder, content, dense)
    kind = options.get("units", "weights")
    if kind == "weights":
        if masks is not None:
            checks.check_masks(saved, masks, found)
            checks.check_average(masks, _average(folder), found)
        checks.check_forbidden(saved, masks, found)
        checks.check_sparsity(saved, requested, found)
    elif model is not None:
        ask = prune_plugins().hook.ssm_prune_adapter
        left = check_units(model, kind, ask, None if masks is None else masks.units, found)
        check_unit_sparsity(UnitMasks(dense, kind, ask), left, requested, found)
        if masks is not None and masks.gone:
            checks.check_zeros(saved.tensors, masks, found)
            checks.check_average(masks, _average(folder), found)
    return found.rows, found.failures


def _average(folder: Path) -> dict[str, Tensor]:
    return read_tensors(folder / AVERAGE)[0] if (folder / AVERAGE).is_file() else {}


def _requested(
    host: PluginHost, folder: Path, content: dict[str, Any], dense: nn.Module
) -> float | None:
    """The sparsity that the run was to end with; None: it ended before its ramp did.

    The method is asked, since its pattern may decide it; if it is not installed, the options are.
    """
    status = read_status(folder)
    try:
        config = resolve(host, str(content.get("recipe", folder.name)), content)
        per_epoch = status.get("steps_per_epoch")
        length = LENGTH if per_epoch is None else run_length(config, per_epoch)
        schedule = start_methods(config, dense, length)[0].schedule
    except (UnknownNameError, DuplicateNameError, PruneError):
        return float(content["prune"]["sparsity"])
    return None if status.get("step", schedule.end) < schedule.end else schedule.sparsity
