"""Time models with and without half of their units, and write the measured table.

    .venv/bin/python tools/reproduce/removal_speed.py --reps 60

The models are those of the recipes, untrained: what a forward pass costs does not depend on the
values of the weights. Both sides alternate in one process, on the kernels that inference uses.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from runs import installed, machine
from torch import nn

from ssm_core import DataInfo, plugin_host
from ssm_core.train.resolve import read_yaml, resolve
from ssm_prune.costs import count_costs, example_input
from ssm_prune.latency import Comparison, compare
from ssm_prune.loader import prune_plugins
from ssm_prune.models import build_dense
from ssm_prune.removal import remove_units
from ssm_prune.unit_masks import UnitMasks

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "tools" / "reproduce" / "results"
IMAGES = DataInfo((3, 32, 32), 10)
TEXT = DataInfo((256,), 65)


@dataclass(frozen=True)
class Case:
    """A recipe's model, what is taken out of it, and the batches it is timed with."""

    recipe: str
    info: DataInfo
    units: str
    batches: tuple[int, ...]


CASES = (
    Case("cifar10-vim", IMAGES, "channels", (1, 64)),
    Case("cifar10-vim", IMAGES, "states", (1, 64)),
    Case("cifar10-vim", IMAGES, "blocks", (1, 64)),
    Case("cifar10-mambavision", IMAGES, "channels", (1, 64)),
    Case("shakespeare-mamba", TEXT, "channels", (1, 16)),
    Case("shakespeare-mamba", TEXT, "states", (1, 16)),
    Case("shakespeare-mamba", TEXT, "blocks", (1, 16)),
)


@dataclass(frozen=True)
class Row:
    """One measurement: `ratio` of the times is dense / small."""

    recipe: str
    units: str
    what: str  # "removed" or "masked"
    batch: int
    threads: int
    parameters: float  # small / dense
    flops: float  # dense / small
    times: Comparison


def main() -> int:
    options = arguments()
    rows = [row for case in CASES for row in measure(case, options)]
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "removal_speed.json").write_text(
        json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8"
    )
    table = RESULTS / "removal_speed.md"
    table.write_text(page(rows, options), encoding="utf-8")
    print(f"{table.read_text(encoding='utf-8')}\nwrote {table}")
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reps", type=int, default=60, help="runs of each model")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    return parser.parse_args()


def measure(case: Case, options: argparse.Namespace) -> Iterator[Row]:
    host, plugins = plugin_host(), prune_plugins()
    config = resolve(host, case.recipe, read_yaml(host.get("recipes", case.recipe).path))
    dense = build_dense(config, case.info)
    small, masked = copy.deepcopy(dense), copy.deepcopy(dense)
    units = UnitMasks(dense, case.units, plugins.hook.ssm_prune_adapter)
    weights = {name: p.detach().abs() for name, p in dense.named_parameters()}
    keep = units.choose(weights, 0.5, "layer")
    remove_units(small, units.groups, keep)
    with torch.no_grad():
        for name, mask in units.parameter_masks(keep).items():
            masked.get_parameter(name).masked_fill_(~mask, 0)
    others = [("removed", small)]
    if case.units == "channels":
        others.append(("masked", masked))
    for what, other in others:
        for threads in options.threads:
            torch.set_num_threads(threads)
            for batch in case.batches:
                yield row(case, what, (dense, other), batch, threads, options.reps)


def row(
    case: Case, what: str, pair: tuple[nn.Module, nn.Module], batch: int, threads: int, reps: int
) -> Row:
    print(f"==> {case.recipe} {case.units} {what}, batch {batch}, {threads} threads", flush=True)
    costs = [count_costs(model, case.info) for model in pair]
    inputs = [example_input(model, case.info, batch) for model in pair]
    times = compare(pair, (inputs[0], inputs[1]), reps)
    first, second = costs
    assert first.flops
    assert second.flops
    parameters = second.parameters / first.parameters
    return Row(
        case.recipe, case.units, what, batch, threads, parameters, first.flops / second.flops, times
    )


def page(rows: list[Row], options: argparse.Namespace) -> str:
    lines = [
        "# Half of the units taken out",
        "",
        "Inference (forward passes without gradients) of the recipes' models, dense against half of"
        " the units removed or only masked. `times` is dense / small with the middle 95 % of"
        f" bootstrap samples, medians of {options.reps} runs made in turn; `FLOPs` is the ratio"
        " of the counted operations. The goal for channels: a lower bound above 1, and at least"
        " half of what the FLOPs promise, 1 + (FLOPs - 1) / 2.",
        "",
        "| model | units | state | batch | threads | parameters left | FLOPs | dense ms | small ms"
        " | times | goal |",
        "|---" * 11 + "|",
    ]
    for r in rows:
        t = r.times
        goal = "-"
        if r.what == "removed" and r.units == "channels":
            met = t.low > 1 and t.ratio >= 1 + (r.flops - 1) / 2
            goal = f"{1 + (r.flops - 1) / 2:.2f}: {'met' if met else 'missed'}"
        cells = [r.recipe, r.units, r.what, str(r.batch), str(r.threads), f"{r.parameters:.0%}"]
        cells += [f"{r.flops:.2f}", f"{t.first_ms:.2f}", f"{t.second_ms:.2f}"]
        cells += [f"{t.ratio:.2f} ({t.low:.2f} to {t.high:.2f})", goal]
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        f"- machine: {machine()}",
        f"- versions: {installed()}",
        f"- command: `python tools/reproduce/removal_speed.py --reps {options.reps} --threads"
        f" {' '.join(map(str, options.threads))}`",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
