"""Train the recipes that draw digits, write what they draw and the measured table.

    .venv/bin/python tools/reproduce/drawing.py --data-root FOLDER

Finished runs are not repeated and an interrupted one goes on, so the command can be given again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from runs import installed, machine, train

from ssm_core.train.folder import read_status
from ssm_vision.generative.samples import SampleOptions, run_samples, save_grid

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "tools" / "reproduce" / "results"
#: picture -> recipe and what is drawn
PICTURES = {
    "mnist-pixels": ("mnist-pixels", SampleOptions(rows=6, temperature=0.9)),
    "mnist-pixels-completed": (
        "mnist-pixels",
        SampleOptions(rows=3, temperature=0.9, complete=14),
    ),
    "mnist-diffusion": ("mnist-diffusion", SampleOptions(rows=6, guidance=1.0)),
}
CAPTIONS = {
    "mnist-pixels": "Drawn pixel by pixel at temperature 0.9, column i of class i:",
    "mnist-pixels-completed": "The upper half is that of a test image, the lower half is drawn:",
    "mnist-diffusion": "Out of noise in 50 steps of DDIM, guidance 1, column i of class i:",
}


def main() -> int:
    options = arguments()
    words = ["--data.root", str(options.data_root), "--trainer.accelerator", "cpu"]
    words += ["--trainer.seed", str(options.seed)]
    recipes = dict.fromkeys(recipe for recipe, _ in PICTURES.values())
    folders = {recipe: train(recipe, options.out, words) for recipe in recipes}
    for name, (recipe, what) in PICTURES.items():
        print(save_grid(*run_samples(folders[recipe], what), RESULTS / f"{name}.png"))
    page = RESULTS / "drawing.md"
    page.write_text(table(folders, options.seed), encoding="utf-8")
    print(page)
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, default=Path("data"), help="parent of MNIST")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "reproduce-drawing")
    return parser.parse_args()


def table(folders: dict[str, Path], seed: int) -> str:
    """The page: a row per recipe, the pictures, the machine, the versions and the command."""
    lines = [
        "# Drawing digits",
        "",
        "Models of the recipes, trained on MNIST's 60 000 images and measured on all 10 000 test"
        " images; the pictures are the first ones drawn with seed 0, none was chosen. Times,"
        " evaluation included, were taken beside many other programs that"
        " shared the two cores: they say little.",
        "",
        "| recipe | parameters | steps | seed | test loss | bits per pixel | minutes |",
        "|---|---|---|---|---|---|---|",
    ]
    for recipe, folder in folders.items():
        status = read_status(folder)
        metrics = status["metrics"]
        bits = metrics.get("eval/bits_per_pixel")
        cells = [recipe, f"{status['parameters']:,}", str(status["step"]), str(seed)]
        cells += [f"{metrics['eval/loss']:.4f}", "-" if bits is None else f"{bits:.4f}"]
        lines.append("| " + " | ".join([*cells, f"{status['seconds'] / 60:.0f}"]) + " |")
    lines += [
        "",
        "The loss of `mnist-pixels` is in nats per pixel of 4 grey levels, that of"
        " `mnist-diffusion` the mean squared error of v over all steps.",
    ]
    for name, caption in CAPTIONS.items():
        lines += ["", caption, "", f"![{name}]({name}.png)"]
    lines += [
        "",
        f"- machine: {machine()}",
        f"- versions: {installed()}",
        f"- command: `python tools/reproduce/drawing.py --data-root FOLDER --seed {seed}`",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
