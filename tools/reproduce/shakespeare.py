"""Train the models of tiny Shakespeare on a CPU for a while; write tables and curves.

    .venv/bin/python tools/reproduce/shakespeare.py --data-root FOLDER --steps 1000 --batch-size 16

Two studies: five mixers with equal parameters (recipes shakespeare-*), and a model that is too
large for its text, without dropout and with (shakespeare-mamba-512*). Finished runs are not
repeated and an interrupted one goes on, so the command can be given again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from runs import installed, machine, train
from shakespeare_curves import (
    Curve,
    curve_of,
    draw_comparison,
    draw_overfitting,
    loss_at,
    step_seconds,
)

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "tools" / "reproduce" / "results"
MIXERS = ("mamba", "transformer", "mamba2", "s4d", "rnn")
WIDE = {
    "without dropout": "shakespeare-mamba-512-nodropout",
    "dropout 0.2": "shakespeare-mamba-512",
}
CONTEXT = 256


def main() -> int:
    options = arguments()
    page = ["# Tiny Shakespeare at a reduced budget", ""]
    if "mixers" in options.studies:
        page += mixers(options)
    if "overfitting" in options.studies:
        page += overfitting(options)
    page += ["", f"- machine: {machine()}", f"- versions: {installed()}", *command(options)]
    path = RESULTS / "shakespeare.md"
    path.write_text("\n".join(page) + "\n", encoding="utf-8")
    print(f"{path.read_text(encoding='utf-8')}\nwrote {path}")
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    studies = ("mixers", "overfitting")
    parser.add_argument("--studies", nargs="+", default=list(studies), choices=studies)
    parser.add_argument("--steps", type=int, default=1000, help="of each of the five mixers")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--wide-steps", type=int, default=400, help="of each wide model")
    parser.add_argument("--wide-batch-size", type=int, default=8)
    parser.add_argument("--wide-characters", type=int, default=100_000, help="to learn by heart")
    parser.add_argument(
        "--evaluations", type=int, default=10, help="in each run, all held-out text"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "reproduce-shakespeare")
    return parser.parse_args()


def words(options: argparse.Namespace, steps: int, batch_size: int) -> list[str]:
    """What the commands say beside the recipe."""
    return [
        *("--data.root", str(options.data_root), "--trainer.accelerator", "cpu"),
        *("--trainer.max_steps", str(steps), "--loader.batch_size", str(batch_size)),
        *("--optim.warmup_steps", str(min(100, steps // 10))),
        *("--trainer.eval_every", str(max(1, steps // options.evaluations))),
        *("--trainer.checkpoint_every", str(max(1, steps // options.evaluations // 2))),
    ]


def mixers(options: argparse.Namespace) -> list[str]:
    """Train the five models; their table and picture."""
    out = options.out / f"{options.steps}-steps-of-{options.batch_size}"
    chosen = words(options, options.steps, options.batch_size)
    runs = {name: train(f"shakespeare-{name}", out, chosen) for name in MIXERS}
    seconds = step_seconds(runs, options.batch_size, CONTEXT)
    curves = {name: curve_of(run, seconds[name]) for name, run in runs.items()}
    draw_comparison(curves, RESULTS / "shakespeare.png")
    return [
        f"Recipes shakespeare-*, cut to {options.steps} steps with batches of"
        f" {options.batch_size} (in full: 5000 of 64), warm-up and cosine as long as that; seed 0."
        " Loss in nats per character over the whole held-out text (nanoGPT's split, windows of"
        f" {CONTEXT}, each from an empty state); guessing: 4.17. Seconds per step are the median of"
        " steps of all models in turn, in one process after the runs; equal seconds are those of"
        " the quickest whole run, losses between two evaluations interpolated.",
        "",
        *comparison(curves),
        "",
        "![Held-out loss against steps and against seconds](shakespeare.png)",
        "",
    ]


def comparison(curves: dict[str, Curve]) -> list[str]:
    """The rows of the table, best last loss first."""
    budget = min(curve.seconds for curve in curves.values())
    lines = [
        "| mixer | parameters | s/step | of Mamba's | loss after all steps | loss after"
        f" {budget:.0f} s |",
        "|---|---|---|---|---|---|",
    ]
    for name, curve in sorted(curves.items(), key=lambda item: item[1].held_out[-1][1]):
        lines.append(
            f"| {name} | {curve.parameters:,} | {curve.step_s:.2f} |"
            f" {curve.step_s / curves['mamba'].step_s:.2f} | {curve.held_out[-1][1]:.3f} |"
            f" {loss_at(curve, budget / curve.step_s):.3f} |"
        )
    return lines


def overfitting(options: argparse.Namespace) -> list[str]:
    """Train the wide model without dropout and with; their table and picture."""
    out = options.out / f"wide-{options.wide_steps}-steps-of-{options.wide_batch_size}"
    chosen = words(options, options.wide_steps, options.wide_batch_size)
    chosen += ["--data.train_characters", str(options.wide_characters)]
    curves = {name: curve_of(train(recipe, out, chosen)) for name, recipe in WIDE.items()}
    draw_overfitting(curves, RESULTS / "shakespeare-overfitting.png")
    passes = options.wide_steps * options.wide_batch_size * CONTEXT / options.wide_characters
    lines = [
        "## A model that is too large for its text",
        "",
        f"Mamba of width 512 ({next(iter(curves.values())).parameters:,} parameters) on the first"
        f" {options.wide_characters:,} characters of the training text, read {passes:.0f} times:"
        f" {options.wide_steps} steps with batches of {options.wide_batch_size}; the held-out text"
        " is the whole one. Training losses are those that are minimised, with dropout where there"
        " is any. `--trainer.patience N` stops a run N evaluations after its best one.",
        "",
        "| | last training loss | best held-out loss | at step | last held-out loss |",
        "|---|---|---|---|---|",
    ]
    for name, curve in curves.items():
        step, best = min(curve.held_out, key=lambda point: point[1])
        lines.append(
            f"| {name} | {curve.training[-1][1]:.3f} | {best:.3f} | {step} |"
            f" {curve.held_out[-1][1]:.3f} |"
        )
    return [*lines, "", "![Training and held-out loss](shakespeare-overfitting.png)", ""]


def command(options: argparse.Namespace) -> list[str]:
    shown = ["steps", "batch_size", "wide_steps", "wide_batch_size", "wide_characters"]
    values = " ".join(f"--{name.replace('_', '-')} {getattr(options, name)}" for name in shown)
    studies = " ".join(options.studies)
    return [
        "- command: `python tools/reproduce/shakespeare.py --data-root FOLDER --studies"
        f" {studies} {values}`"
    ]


if __name__ == "__main__":
    sys.exit(main())
