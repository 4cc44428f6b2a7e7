"""`ssm-prune export RUN --as dense|removed|2:4 --out FOLDER`."""

from __future__ import annotations

import argparse
import copy
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ssm_core.cli.parsing import OneLineParser
from ssm_core.cli.tables import print_columns
from ssm_core.errors import ConfigError
from ssm_core.plugins import plugin_host
from ssm_core.train.checkpoint import load_weights, save_weights
from ssm_core.train.folder import WEIGHTS, write_static
from ssm_core.train.restore import RestoredRun, load_run
from ssm_prune.artifact import Artifact
from ssm_prune.cli import semi_structured
from ssm_prune.cli.targets import weights_of
from ssm_prune.errors import PruneError
from ssm_prune.loader import PrunePlugins, prune_plugins
from ssm_prune.models import DENSE, build_dense, state_of, verdicts_of
from ssm_prune.report_run import NOTES

FORMS = ("dense", "removed", "2:4")


def export_command(words: Sequence[str]) -> int:
    """Write the model of a run as a folder that `ssm_core.train.restore.load_run` reads."""
    arguments = _parser().parse_args(list(words))
    run, out, form = arguments.run, arguments.out, arguments.form
    _check(arguments)
    file = weights_of(run)
    restored = load_run(run, host=plugin_host())
    matrices = _check_pattern(restored) if form == "2:4" else []
    masks = _masks(restored) if form == "removed" else {}
    state = _state(restored)
    if form == "removed" and state == DENSE:
        raise PruneError(f"{run}: nothing is masked in it, so nothing can be removed")
    if masks:
        artifact = remove(restored.module, masks, prune_plugins())
        _write_folder(restored, out)
        _, metadata = load_weights(file)
        save_weights(out / WEIGHTS, artifact.model, {**metadata, **artifact.metadata})
        note = artifact.note
    else:
        _write_folder(restored, out)
        shutil.copyfile(file, out / WEIGHTS)
        note = semi_structured.NOTE if form == "2:4" else NOTES[state]
    if matrices:
        _print_matrices(restored.module, matrices, arguments.convert)
    print(note)
    print(out)
    return 0


def remove(model: nn.Module, masks: Mapping[str, Tensor], plugins: PrunePlugins) -> Artifact:
    """Ask the plugins for the model without what is masked; `model` stays as it is.

    Args:
        masks: True where kept, of every parameter that lost weights.
    Raises:
        PruneError: no plugin removes anything from such a model.
    """
    smaller = copy.deepcopy(model)
    with torch.no_grad():
        for name, mask in masks.items():
            smaller.get_parameter(name).masked_fill_(~mask, 0)
    artifact: Artifact | None = plugins.hook.ssm_prune_export(
        model=smaller, masks=masks, target="removed"
    )
    if artifact is None:
        raise PruneError(
            "no whole unit (channel, state, head, block) of this model is masked, and single "
            "weights cannot be taken out of a tensor: export it --as dense, or train with "
            "--prune.units channels"
        )
    return artifact


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(prog="ssm-prune export", description="Write a run's model as a folder.")
    parser.add_argument("run", type=Path, help="folder of a pruned run")
    parser.add_argument(
        "--as",
        dest="form",
        choices=FORMS,
        required=True,
        help="dense: zeros as ordinary weights; removed: a smaller model; 2:4: dense, and checked "
        "to have two zeros in every four consecutive inputs",
    )
    parser.add_argument("--out", type=Path, required=True, help="new folder to write")
    parser.add_argument(
        "--convert",
        action="store_true",
        help="with --as 2:4: also convert every matrix on the CUDA device and compare its product",
    )
    return parser


def _check(arguments: argparse.Namespace) -> None:
    """Refuse what cannot work before anything is written."""
    if arguments.out.exists() and (not arguments.out.is_dir() or any(arguments.out.iterdir())):
        raise ConfigError(f"--out {arguments.out}: exists and is not empty, expected a new folder")
    if arguments.convert and arguments.form != "2:4":
        raise ConfigError(f"--convert goes with --as 2:4, not with --as {arguments.form}")
    if arguments.convert:
        semi_structured.require_device()


def _write_folder(restored: RestoredRun, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    text = (restored.folder / "config.yaml").read_text(encoding="utf-8")
    write_static(out, text, restored.info)


def _state(restored: RestoredRun) -> str:
    dense = build_dense(restored.config, restored.info)
    return state_of(restored.module, dense, verdicts_of(dense, prune_plugins()))


def _masks(restored: RestoredRun) -> dict[str, Tensor]:
    """Masks from the zeros in the weights: what is zero does not act, whoever made it so."""
    verdicts = verdicts_of(restored.module, prune_plugins())
    masks = {n: p != 0 for n, p in restored.module.named_parameters() if verdicts[n].allow}
    return {name: mask for name, mask in masks.items() if not bool(mask.all())}


def _check_pattern(restored: RestoredRun) -> list[str]:
    verdicts = verdicts_of(restored.module, prune_plugins())
    matrices = semi_structured.eligible(restored.module, verdicts)
    semi_structured.check_pattern(restored.module, matrices)
    return matrices


def _print_matrices(model: nn.Module, matrices: Sequence[str], convert: bool) -> None:
    rows = [("matrix", "shape", "2:4 tensor")]
    for name in matrices:
        weight = model.get_parameter(name).detach()
        outcome = semi_structured.conversion(weight) if convert else semi_structured.fit(weight)
        rows.append((name, "x".join(map(str, weight.shape)), outcome))
    print_columns(rows)
