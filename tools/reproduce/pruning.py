"""Prune small models with every method at several sparsities and seeds; write the table.

    .venv/bin/python tools/reproduce/pruning.py --data-root FOLDER

Every run of a data set trains the same model on the same images for as many steps, but for imp,
which trains once per level. Finished runs are not repeated, so the command can be given again.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runs import installed, machine

from ssm_core import plugin_host
from ssm_core.train.fit import fit
from ssm_core.train.folder import read_status
from ssm_core.train.loggers import read_metrics
from ssm_core.train.resolve import read_yaml, resolve

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "tools" / "reproduce" / "results" / "pruning.md"
SPARSITIES = (0.5, 0.8, 0.9, 0.95)
#: fraction of the surviving weights that imp removes per level
IMP_FRACTION = 0.5
#: the projections to the scan hold a third of the prunable weights of such small models: with the
#: policy's cap of a half on them, 90 % could not be reached
UNCAPPED = '["*.x_proj*.weight", "*.dt_proj*.weight"]'


@dataclass(frozen=True)
class Study:
    """A recipe made small enough for a CPU."""

    recipe: str
    words: tuple[str, ...]
    about: str


STUDIES = {
    "mnist": Study(
        "mnist-bimamba",
        (
            *("--model.d_model", "32", "--data.train_examples", "10000"),
            *("--data.eval_examples", "5000", "--trainer.max_epochs", "3"),
            *("--optim.warmup_steps", "20"),
        ),
        "mnist-bimamba of width 32, 3 epochs of 10 000 images, measured on 5000 test images",
    ),
    "cifar10": Study(
        "cifar10-vim",
        (
            *("--model.embed_dim", "64", "--model.depth", "3", "--model.patch_size", "8"),
            *("--model.stride", "8", "--model.drop_path", "0", "--optim.lr", "0.003"),
            *("--data.train_examples", "5000", "--data.eval_examples", "2000"),
            *("--loader.batch_size", "64", "--trainer.max_epochs", "6"),
            *("--optim.warmup_steps", "40"),
        ),
        "cifar10-vim of width 64 with 3 blocks and patches of 8 x 8, 6 epochs of 5000 images,"
        " measured on 2000 test images",
    ),
}
#: method as shown -> words that choose it; None: no pruning
METHODS: dict[str, tuple[str, ...] | None] = {
    "dense": None,
    "random": ("--prune", "random"),
    "magnitude": ("--prune", "magnitude"),
    "dynamic-cosine": ("--prune", "dynamic-cosine"),
    "gradient": ("--prune", "gradient"),
    "early-bird": (
        *("--prune", "early-bird", "--prune.every", "5%", "--prune.end", "50%"),
        *("--prune.distance", "normalised", "--prune.on_miss", "prune"),
    ),
    "imp": ("--prune", "imp", "--prune.fraction", str(IMP_FRACTION)),
}


@dataclass(frozen=True)
class Result:
    """One finished run."""

    study: str
    method: str
    sparsity: float
    seed: int
    accuracy: float  # 0..1
    seconds: float


def main() -> int:
    options = arguments()
    results = [run(options, *what) for what in runs(options)]
    TABLE.write_text(page(results, options), encoding="utf-8")
    print(f"{TABLE.read_text(encoding='utf-8')}\nwrote {TABLE}")
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--studies", nargs="+", default=list(STUDIES), choices=STUDIES)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--sparsities", type=float, nargs="+", default=list(SPARSITIES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "reproduce-pruning")
    return parser.parse_args()


def runs(options: argparse.Namespace) -> Iterator[tuple[str, str, float, int]]:
    """(study, method, sparsity, seed), all of a seed first: a broken-off table is comparable."""
    for study in options.studies:
        for seed in options.seeds:
            for method in options.methods:
                for sparsity in (0.0,) if METHODS[method] is None else options.sparsities:
                    yield study, method, sparsity, seed


def run(options: argparse.Namespace, study: str, method: str, sparsity: float, seed: int) -> Result:
    folder = options.out / study / f"{method}-{sparsity:g}-seed-{seed}"
    if read_status(folder).get("state") != "finished":
        print(f"==> {folder}", flush=True)
        recipe, host = STUDIES[study].recipe, plugin_host()
        words = [*STUDIES[study].words, "--trainer.seed", str(seed), "--trainer.accelerator", "cpu"]
        words += ["--data.root", str(options.data_root)]
        chosen = METHODS[method]
        if chosen is not None:
            words += [*chosen, "--prune.sparsity", str(sparsity)]
            words += ["--prune.allow_unsafe", UNCAPPED]
        config = resolve(host, recipe, read_yaml(host.get("recipes", recipe).path), arguments=words)
        folder.mkdir(parents=True, exist_ok=True)
        fit(host, config, folder, resume=True)
    status = read_status(folder)
    if status["state"] != "finished":
        sys.exit(f"{folder}: {status['state']}; give the command again to go on")
    # of training alone: the report of a pruned run measures latencies, which takes its time too
    epochs = read_metrics(folder / "metrics.csv")["time/step_s"]
    seconds = sum(value for _, value in epochs) * status["steps_per_epoch"]
    return Result(study, method, sparsity, seed, status["metrics"]["eval/accuracy"], seconds)


def page(results: list[Result], options: argparse.Namespace) -> str:
    lines = [
        "# Methods of pruning side by side",
        "",
        f"Test accuracy in percent after training, mean over seeds {options.seeds} (and the lowest"
        " and the highest of them). Weights are masked, so no model is faster; the time is that of"
        " training alone, as a multiple of the dense run's. All methods train for as"
        " many steps as the dense run, but for imp, which trains once more per level (each level"
        f" removes {IMP_FRACTION:.0%} of what is left) and goes back to the weights of an early"
        " step. Sparsity counts prunable weights: the matrices inside the blocks, without the"
        " policy's cap on the projections to the scan (`--prune.allow_unsafe`), with which models"
        " as small as these could not lose 90 %. Where no early-bird ticket has emerged by half of"
        " the run, it is drawn there, which is what `magnitude` does.",
    ]
    for study in options.studies:
        chosen = [result for result in results if result.study == study]
        lines += ["", f"## {study}", "", STUDIES[study].about + ".", "", *table(chosen)]
    lines += ["", "## What was expected, and what came", "", *expectations(results)]
    lines += [
        "",
        f"- machine: {machine()}",
        f"- versions: {installed()}",
        "- command: `python tools/reproduce/pruning.py --data-root FOLDER --studies"
        f" {' '.join(options.studies)} --methods {' '.join(options.methods)} --sparsities"
        f" {' '.join(map(str, options.sparsities))} --seeds {' '.join(map(str, options.seeds))}`",
    ]
    return "\n".join(lines) + "\n"


def table(results: list[Result]) -> list[str]:
    sparsities = sorted({result.sparsity for result in results if result.sparsity})
    head = ["method", *(f"{sparsity:.0%}" for sparsity in sparsities), "time"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    dense = statistics.median(r.seconds for r in results if r.method == "dense")
    for method in dict.fromkeys(result.method for result in results):
        own = [result for result in results if result.method == method]
        columns = (0.0,) * len(sparsities) if METHODS[method] is None else sparsities
        cells = [spread([r.accuracy for r in own if r.sparsity == s]) for s in columns]
        times = statistics.median(result.seconds for result in own) / dense
        lines.append("| " + " | ".join([method, *cells, f"{times:.1f}"]) + " |")
    return lines


def spread(values: list[float]) -> str:
    percent = [100 * value for value in values]
    return f"{statistics.mean(percent):.1f} ({min(percent):.1f} to {max(percent):.1f})"


def expectations(results: list[Result]) -> list[str]:
    """One line per pair that should be in an order, with what was measured."""
    lines = []
    for study in dict.fromkeys(result.study for result in results):
        for better, worse in (
            ("dynamic-cosine", "random"),
            ("dynamic-cosine", "magnitude"),
            ("imp", "random"),
        ):
            gaps = [gap(results, study, better, worse, sparsity) for sparsity in SPARSITIES]
            shown = ", ".join(
                f"{difference:+.1f} at {sparsity:.0%}"
                for sparsity, difference in zip(SPARSITIES, gaps, strict=True)
                if difference is not None
            )
            if shown:
                lines.append(f"- {study}: {better} should beat {worse}: {shown} points")
    return lines


def gap(
    results: list[Result], study: str, better: str, worse: str, sparsity: float
) -> float | None:
    """Difference of the mean accuracies in points; None where one was not measured."""
    means = []
    for method in (better, worse):
        found = [
            result.accuracy
            for result in results
            if (result.study, result.method, result.sparsity) == (study, method, sparsity)
        ]
        if not found:
            return None
        means.append(100 * statistics.mean(found))
    return means[0] - means[1]


if __name__ == "__main__":
    sys.exit(main())
