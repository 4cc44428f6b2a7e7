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

from runs import installed, machine, train

from ssm_core.train.folder import read_status
from ssm_core.train.restore import load_run

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
        f" {config.loader.batch_size} new examples each. Accuracy over the answers of"
        f" {data.eval_examples} held-out examples after the last step, the mean over seeds"
        f" {seeds}; guessing gives {1 / data.vocabulary:.1%}. S4D has one convolution for every"
        " input, which is enough for copying; the other tasks ask for a state that looks at what"
        " comes in (arXiv 2312.00752, section 4.1, where sequences have up to a million steps).",
        "",
        "| task | | model | accuracy | parameters | steps | seconds |",
        "|---|---|---|---|---|---|---|",
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
    accuracies = [100 * status["metrics"]["eval/accuracy"] for status in statuses]
    lowest = f" (lowest {min(accuracies):.1f})" if len(runs) > 1 else ""
    cells = [
        task,
        TASKS[task],
        model,
        f"{statistics.mean(accuracies):.1f} %{lowest}",
        f"{statuses[0]['parameters']:,}",
        str(statuses[0]["step"]),
        f"{statistics.median(status['seconds'] for status in statuses):.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    sys.exit(main())
