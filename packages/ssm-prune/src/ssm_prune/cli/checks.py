"""The checks of `ssm-prune verify`, on tensors as they are in the files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from ssm_core.errors import CheckpointError, ConfigError
from ssm_core.plugins import PluginHost
from ssm_core.sizes import METADATA_KEY, sizes_in
from ssm_core.train.restore import load_run
from ssm_prune.cli.saved import SavedMasks
from ssm_prune.policy import Verdict

#: how far below the requested sparsity a finished run may be
TOLERANCE = 0.01


@dataclass
class Findings:
    """What was found: rows for a table, and what is wrong, one line each."""

    rows: list[tuple[str, str]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Saved:
    """A weights file beside the dense model that its run began with.

    Attributes:
        dense: parameters of that model, untrained.
        verdicts: the policy's, for each of them.
        tensors, metadata: content of the file.
    """

    dense: Mapping[str, nn.Parameter]
    verdicts: Mapping[str, Verdict]
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]

    def weights(self, allowed: bool) -> dict[str, Tensor]:
        """The parameters in the file that may be pruned, or those that may not."""
        names = (name for name, verdict in self.verdicts.items() if verdict.allow == allowed)
        return {name: self.tensors[name] for name in names if name in self.tensors}


def check_sizes(saved: Saved, found: Findings) -> None:
    """A file whose tensors are smaller than the model's must say the new sizes."""
    other = [
        name
        for name, parameter in saved.dense.items()
        if name in saved.tensors and saved.tensors[name].shape != parameter.shape
    ]
    if METADATA_KEY not in saved.metadata:
        if other:
            found.failures.append(
                f"{other[0]} has shape {tuple(saved.tensors[other[0]].shape)}, the model "
                f"{tuple(saved.dense[other[0]].shape)}, and the metadata has no sizes"
            )
        found.rows.append(("sizes", "those of the dense model"))
        return
    try:
        sizes_in(saved.metadata, "the file")
    except CheckpointError as error:
        found.failures.append(str(error))
    found.rows.append(("sizes", f"{len(other)} tensors are smaller, the metadata says so"))


def load(host: PluginHost, folder: Path, found: Findings) -> nn.Module | None:
    """The model that configuration and metadata describe, if the weights fit it."""
    try:
        model = load_run(folder, host=host).module
    except (CheckpointError, ConfigError) as error:
        found.failures.append(f"cannot be loaded: {error}")
        return None
    found.rows.append(("loads", "yes"))
    return model


def check_masks(saved: Saved, masks: SavedMasks, found: Findings) -> None:
    """Zeros must be where the masks of the checkpoint say, and nowhere else."""
    for where, weights in (("", saved.tensors), ("checkpoint: ", masks.weights)):
        for name in saved.weights(allowed=True):
            if name in weights:
                problem = _against_mask(weights[name], masks.gone.get(name))
                if problem:
                    found.failures.append(f"{where}{name}: {problem}")
    for name in masks.gone:
        if name not in saved.tensors:
            found.failures.append(f"{name}: has a mask, but is not in the file")
    _finish(masks, found)


def check_zeros(tensors: Mapping[str, Tensor], masks: SavedMasks, found: Findings) -> None:
    """Weights under the masks must be zero; others may be, in units that are masked."""
    _check_under(masks, {"": tensors, "checkpoint: ": masks.weights}, found)
    _finish(masks, found)


def _check_under(
    masks: SavedMasks, copies: Mapping[str, Mapping[str, Tensor]], found: Findings
) -> None:
    for where, weights in copies.items():
        for name, gone in masks.gone.items():
            left = int(weights[name][gone].count_nonzero()) if name in weights else 0
            if left:
                found.failures.append(f"{where}{name}: {left} weights under the mask are not 0")


def _finish(masks: SavedMasks, found: Findings) -> None:
    for removed, last in masks.counts:
        if last is not None and last != removed:
            found.failures.append(
                f"the masks of the checkpoint remove {removed} weights, the last mask update "
                f"removed {last}"
            )
    removed = sum(int(gone.sum()) for gone in masks.gone.values())
    found.rows.append(("masks", f"{len(masks.gone)} tensors, {removed:,} weights; all are 0"))


def check_average(masks: SavedMasks, average: Mapping[str, Tensor], found: Findings) -> None:
    """Removed weights must be zero in the moving average too; it may have further zeros."""
    _check_under(masks, {"checkpoint's average: ": masks.average, "average: ": average}, found)
    if masks.average or average:
        found.rows.append(("moving average", "0 under the masks"))


def check_forbidden(saved: Saved, masks: SavedMasks | None, found: Findings) -> None:
    """What may not be pruned has no mask, and no zeros where the untrained model has none."""
    forbidden = saved.weights(allowed=False)
    for name, tensor in forbidden.items():
        if masks is not None and name in masks.gone:
            found.failures.append(f"{name}: has a mask although {saved.verdicts[name].reason}")
        start = saved.dense[name].detach()
        if start.shape == tensor.shape:
            new = int(((tensor == 0) & (start != 0)).sum())
            if new:
                found.failures.append(
                    f"{name}: {new} weights became 0 although {saved.verdicts[name].reason}"
                )
    found.rows.append(("forbidden tensors", f"{len(forbidden)}, none has new zeros"))


def check_sparsity(saved: Saved, requested: float | None, found: Findings) -> None:
    """At most 1 % fewer weights gone than requested: masked in the file, or no longer there."""
    total = sum(saved.dense[n].numel() for n, v in saved.verdicts.items() if v.allow)
    left = sum(int(tensor.count_nonzero()) for tensor in saved.weights(allowed=True).values())
    achieved = 1 - left / max(1, total)
    found.rows.append(("prunable weights", f"{total:,}"))
    found.rows.append(("not 0 in the file", f"{left:,}"))
    found.rows.append(("achieved sparsity", f"{achieved:.2%}"))
    if requested is None:
        found.rows.append(("requested sparsity", "not compared: the run ended before its ramp"))
        return
    found.rows.append(("requested sparsity", f"{requested:.2%}"))
    if achieved < requested - TOLERANCE:
        found.failures.append(f"sparsity is {achieved:.2%}, requested was {requested:.2%}")


def _against_mask(weight: Tensor, gone: Tensor | None) -> str:
    """What is wrong with a tensor, if anything."""
    if gone is None:
        zeros = int((weight == 0).sum())
        return f"{zeros} weights are 0, but the checkpoint has no mask of it" if zeros else ""
    if gone.shape != weight.shape:
        return f"shape {tuple(weight.shape)}, but its mask has {tuple(gone.shape)}"
    alive, dead = gone & (weight != 0), ~gone & (weight == 0)
    if bool(alive.any()):
        first = tuple(alive.nonzero()[0].tolist())
        value = weight[first].item()
        return f"{int(alive.sum())} weights under the mask are not 0, first {first} = {value:g}"
    if bool(dead.any()):
        return f"{int(dead.sum())} weights are 0 although the mask keeps them"
    return ""
