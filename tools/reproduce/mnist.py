"""Train the MNIST recipes with several seeds and write the measured table.

    .venv/bin/python tools/reproduce/mnist.py --data-root FOLDER --seeds 0 1 2 --save-weights

Finished runs are not repeated and an interrupted one goes on, so the command can be given again.
`--save-weights` puts the weights of the first seed (not of the best one, which would be a choice
made on the test images) into the ssm-vision package for `create_model(..., pretrained=True)`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runs import installed, machine, train

from ssm_core.train.folder import read_status
from ssm_core.train.restore import load_run
from ssm_vision.classifier import PatchClassifier
from ssm_vision.presets import save_pretrained

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "tools" / "reproduce" / "results" / "mnist.md"
#: recipe -> published test accuracy after 5 epochs, percent; None: not published
PUBLISHED: dict[str, float | None] = {
    "mnist-bimamba": 97.93,
    "mnist-causal": 97.00,
    "mnist-rnn": 94.40,
    "mnist-transformer": None,
}


@dataclass(frozen=True)
class Result:
    """What one finished run measured."""

    recipe: str
    seed: int
    folder: Path
    accuracy: float  # 0..1, on the 10 000 test images after the last epoch
    loss: float
    parameters: int
    epoch_s: float  # median over epochs, training alone


def main() -> int:
    options = arguments()
    results = [
        result_of(recipe, seed, train(recipe, options.out / f"seed-{seed}", words(seed, options)))
        for seed in options.seeds  # all recipes of a seed first: a broken-off table is comparable
        for recipe in options.recipes
    ]
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    TABLE.write_text(table(results, options), encoding="utf-8")
    print(f"{TABLE.read_text(encoding='utf-8')}\nwrote {TABLE}")
    if options.save_weights:
        for result in results:
            if result.seed == options.seeds[0]:
                print(f"wrote {save_weights(result)}")
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, default=Path("data"), help="parent of MNIST")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--recipes", nargs="+", default=list(PUBLISHED), choices=list(PUBLISHED))
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "reproduce-mnist")
    parser.add_argument("--save-weights", action="store_true", help="of the first seed")
    return parser.parse_args()


def words(seed: int, options: argparse.Namespace) -> list[str]:
    """What the command says beside the recipe."""
    root = str(options.data_root)
    return ["--trainer.seed", str(seed), "--trainer.accelerator", "cpu", "--data.root", root]


def result_of(recipe: str, seed: int, folder: Path) -> Result:
    status = read_status(folder)
    return Result(
        recipe=recipe,
        seed=seed,
        folder=folder,
        accuracy=status["metrics"]["eval/accuracy"],
        loss=status["metrics"]["eval/loss"],
        parameters=status["parameters"],
        epoch_s=status["step_s"] * status["steps_per_epoch"],
    )


def table(results: list[Result], options: argparse.Namespace) -> str:
    """The page: a row per recipe, the machine, the versions and the command."""
    epochs = {load_run(r.folder).config.trainer.max_epochs for r in results}
    seeds = " ".join(str(seed) for seed in options.seeds)
    lines = [
        "# MNIST: four sequence layers with equal parameter budgets",
        "",
        f"Test accuracy in percent after {', '.join(map(str, sorted(epochs, key=str)))} epochs of"
        " the recipe, on the 10 000 test images; nothing was chosen on them (last epoch, no early"
        " stop). Patches of 4 x 4 (49 tokens), width 64, two layers, batch 64, AdamW 1e-3, the same"
        " schedule for all. The standard deviation is that of the sample.",
        "",
        "| recipe | parameters | mean ± std | " + " | ".join(f"seed {s}" for s in options.seeds)
        + " | published | s/epoch |",
        "|---|---|---|" + "---|" * len(options.seeds) + "---|---|",
    ]  # fmt: skip
    lines += [row([r for r in results if r.recipe == recipe]) for recipe in options.recipes]
    lines += [
        "",
        f"- machine: {machine()}; seconds per epoch are the"
        " median, training alone (evaluation not counted), on a machine that other programs used"
        " at times",
        f"- versions: {installed()}",
        f"- command: `python tools/reproduce/mnist.py --data-root FOLDER --seeds {seeds}`",
    ]
    return "\n".join(lines) + "\n"


def row(results: list[Result]) -> str:
    accuracies = [100 * r.accuracy for r in results]
    spread = f" ± {statistics.stdev(accuracies):.2f}" if len(accuracies) > 1 else ""
    published = PUBLISHED[results[0].recipe]
    cells = [
        results[0].recipe,
        f"{results[0].parameters:,}",
        f"{statistics.mean(accuracies):.2f}{spread}",
        *(f"{accuracy:.2f}" for accuracy in accuracies),
        f"{published:.2f}" if published is not None else "-",
        f"{statistics.median(r.epoch_s for r in results):.1f}",
    ]
    return "| " + " | ".join(cells) + " |"


def save_weights(result: Result) -> Path:
    """Copy a run's weights into the package, with its figures."""
    restored = load_run(result.folder)
    assert isinstance(restored.module, PatchClassifier)
    figures: dict[str, Any] = {
        "accuracy": round(result.accuracy, 6),
        "loss": round(result.loss, 6),
        "seed": result.seed,
        "epochs": restored.config.trainer.max_epochs,
        "parameters": result.parameters,
    }
    return save_pretrained(result.recipe.replace("-", "_"), restored.module, figures)


if __name__ == "__main__":
    sys.exit(main())
