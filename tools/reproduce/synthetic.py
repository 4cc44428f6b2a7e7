"""Train Mamba and S4D on the synthetic tasks of memory and write the table.

    .venv/bin/python tools/reproduce/synthetic.py --seeds 0

Needs no data. Finished runs are not repeated and an interrupted one goes on, so the command can be
given again.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

import torch
from runs import installed, machine, train

from ssm_core.train.folder import read_status
from ssm_core.train.restore import load_run
from ssm_text.data.windows import IGNORED

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "tools" / "reproduce" / "results" / "synthetic.md"
TASKS = {
    "copying": "data tokens first, always equally far from their copies",
    "selective-copying": "data tokens anywhere among the noise",
    "induction-heads": "which token followed a marker when it appeared before",
}
MODELS = ("mamba", "s4d")


def main() -> int:
    options = arguments()
    folders = {
        (task, model): [one(f"{task}-{model}", seed, options) for seed in options.seeds]
        for task in TASKS
        for model in MODELS
    }
    TABLE.write_text(page(folders, options), encoding="utf-8")
    print(f"{TABLE.read_text(encoding='utf-8')}\nwrote {TABLE}")
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "reproduce-synthetic")
    return parser.parse_args()


def one(recipe: str, seed: int, options: argparse.Namespace) -> Path:
    words = ["--trainer.seed", str(seed), "--trainer.accelerator", "cpu"]
    return train(recipe, options.out / f"seed-{seed}", words)


def page(folders: dict[tuple[str, str], list[Path]], options: argparse.Namespace) -> str:
    config = load_run(folders["copying", "mamba"][0]).config
    data, steps = config.typed["data"], config.trainer.max_steps
    seeds = " ".join(map(str, options.seeds))
    lines = [
        "# Memory: what to keep may depend on what it is",
        "",
        f"Sequences of {data.length} steps, {data.vocabulary} different data tokens, of which"
        f" {data.tokens} are to be copied; models of two layers, {steps} steps with batches of"
        f" {config.loader.batch_size} new examples each. Tokens: how many answers are right in"
        f" {data.eval_examples} held-out examples after the last step (guessing:"
        f" {1 / data.vocabulary:.1%}); examples: how many have no wrong answer. Means over seeds"
        f" {seeds}. S4D, wider for as many parameters, has one convolution for every"
        " input, which is enough for copying; the other tasks ask for a state that looks at what"
        " comes in (arXiv 2312.00752, section 4.1, where sequences have up to a million steps).",
        "",
        "| task | | model | tokens | examples | parameters | steps | seconds |",
        "|---|---|---|---|---|---|---|---|",
        *(row(task, model, runs) for (task, model), runs in folders.items()),
        "",
        f"- machine: {machine()}; the seconds are those of whole runs, evaluations included, on a"
        " machine that other programs used at the same time",
        f"- versions: {installed()}",
        f"- command: `python tools/reproduce/synthetic.py --seeds {seeds}`",
    ]
    return "\n".join(lines) + "\n"


def row(task: str, model: str, runs: list[Path]) -> str:
    statuses = [read_status(run) for run in runs]
    accuracies = [status["metrics"]["eval/accuracy"] for status in statuses]
    cells = [
        task,
        TASKS[task],
        model,
        f"{statistics.mean(accuracies):.1%}",
        f"{statistics.mean(map(whole_answers, runs)):.1%}",
        f"{statuses[0]['parameters']:,}",
        str(statuses[0]["step"]),
        f"{statistics.median(status['seconds'] for status in statuses):.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


@torch.no_grad()
def whole_answers(run: Path) -> float:
    """The part of the held-out examples in which every answer is right, 0..1."""
    restored = load_run(run)
    config = restored.config
    examples = config.specs["data"].build(config.typed["data"]).evaluation
    inputs, targets = examples.__getitems__(range(len(examples)))
    likeliest = restored.module.eval()(inputs).argmax(-1)
    right = (likeliest == targets) | (targets == IGNORED)
    return float(right.all(dim=1).double().mean())


if __name__ == "__main__":
    sys.exit(main())
