"""Train the recipe em-vmunet and write the measured table and one picture.

    .venv/bin/python tools/reproduce/em_vmunet.py --data-root FOLDER

FOLDER holds em_membrane/{image,label}/N.png, the 30 slices of the ISBI 2012 challenge. A finished
run is not repeated and an interrupted one goes on, so the command can be given again.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from pathlib import Path

import torch
from runs import installed, machine, train
from torch import Tensor

from ssm_core import DataBundle
from ssm_core.train.folder import read_status
from ssm_core.train.restore import RestoredRun, load_run
from ssm_vision.data.segmentation_folder import Segmented
from ssm_vision.scene import Scene
from ssm_vision.segmentation import predicted
from ssm_vision.segmentation_metrics import PixelAccuracy
from ssm_vision.segmentation_pictures import draw_segmentation

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "tools" / "reproduce" / "results"
RECIPE = "em-vmunet"
WIDTH = 1200  # pixels of the picture, so that it stays small


def main() -> int:
    options = arguments()
    words = ["--trainer.seed", str(options.seed), "--trainer.accelerator", "cpu"]
    run = train(RECIPE, options.out, [*words, "--data.root", str(options.data_root)])
    restored = load_run(run)
    chosen = dataclasses.replace(restored.config.typed["data"], root=str(options.data_root))
    data = restored.config.specs["data"].build(chosen)
    RESULTS.mkdir(parents=True, exist_ok=True)
    table = RESULTS / "em_vmunet.md"
    table.write_text(page(restored, data, count(restored, data)), encoding="utf-8")
    print(f"{table.read_text(encoding='utf-8')}\nwrote {table} and {picture(restored, data)}")
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data-root", type=Path, default=Path("data"), help="parent of em_membrane"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "reproduce-em-vmunet")
    return parser.parse_args()


@torch.no_grad()
def count(restored: RestoredRun, data: DataBundle) -> Tensor:
    """Pixels of the held-out images by true and predicted class (2, 2)."""
    metric = PixelAccuracy(2)
    for i in range(len(data.evaluation)):  # type: ignore[arg-type]
        image, truth = data.evaluation[i]
        metric.update(predicted(restored.module(image[None]))[0], truth)
    return metric.counts


def page(restored: RestoredRun, data: DataBundle, counts: Tensor) -> str:
    """The table, what it is about, the machine and the command."""
    status, config = read_status(restored.folder), restored.config
    model, chosen, trainer = (config.typed[name] for name in ("model", "data", "trainer"))
    n_train, n_out = (pictures_of(part) for part in (data.train, data.evaluation))
    examples = f"{chosen.crops} squares of {chosen.size} x {chosen.size} pixels per picture"
    accuracy = float(counts.trace() / counts.sum())
    seed = f" --seed {trainer.seed}" if trainer.seed else ""
    lines = [
        "# Electron micrographs: cells and membranes by a reduced VM-UNet",
        "",
        "30 slices of 512 x 512 pixels (ISBI 2012 challenge, serial section electron microscopy). "
        f"Trained on the first {n_train}, measured on the last {n_out}, whole, after the last step "
        "(no early stop). Dice and IoU are over all held-out pixels together. In the challenge's "
        "labels white is the inside of cells, black the membranes: the recipe's foreground are the "
        "cells. As they are most of the picture, calling every pixel a cell gets far already (last "
        "column), and the membranes are the harder half.",
        "",
        "| foreground | Dice | IoU | Dice if all pixels were called so |",
        "|---|---|---|---|",
        row("cells (the recipe's `eval/dice`)", counts, 1),
        row("membranes (`eval/dice_background`)", counts, 0),
        "",
        f"- pixel accuracy {accuracy:.4f}",
        f"- model: {status['parameters']:,} parameters; dims {list(model.dims)}, depths "
        f"{list(model.depths)} down and {list(model.depths_decoder)} up, patches of "
        f"{model.patch_size} x {model.patch_size}, {model.d_state} states",
        f"- training: {status['step']} steps of {config.typed['loader'].batch_size} examples "
        f"({examples} and epoch, mirrored and turned), AdamW {config.typed['optim'].lr:g}, seed "
        f"{trainer.seed}, {status['seconds'] / 60:.1f} min in all, {status['step_s']:.2f} s per "
        "step (median over epochs)",
        f"- machine: {machine()}; other programs used it at the same time, so that the times are "
        "upper bounds",
        f"- versions: {installed()}",
        f"- command: `python tools/reproduce/em_vmunet.py --data-root FOLDER{seed}`",
        "",
        "![image, truth, prediction and errors of held-out slices](em_vmunet.jpg)",
    ]
    return "\n".join(lines) + "\n"


def pictures_of(part: object) -> int:
    """How many files a part of the data has."""
    assert isinstance(part, Segmented)
    return len(part.pictures)


def row(name: str, counts: Tensor, foreground: int) -> str:
    """Dice, IoU and the Dice of a picture that is foreground all over."""
    both = float(counts[foreground, foreground])
    true, said = float(counts[foreground].sum()), float(counts[:, foreground].sum())
    trivial = 2 * true / (true + float(counts.sum()))
    dice, iou = 2 * both / (true + said), both / (true + said - both)
    return f"| {name} | {dice:.4f} | {iou:.4f} | {trivial:.4f} |"


def picture(restored: RestoredRun, data: DataBundle) -> Path:
    """The report's picture of the run, smaller and as JPEG."""
    from PIL import Image

    path = RESULTS / "em_vmunet.jpg"
    with tempfile.TemporaryDirectory() as folder:
        drawn = draw_segmentation(Scene(restored, data, RECIPE, Path(folder)))[0].path
        with Image.open(drawn) as opened:
            height = round(opened.height * WIDTH / opened.width)
            small = opened.convert("RGB").resize((WIDTH, height), Image.Resampling.LANCZOS)
    small.save(path, quality=70, optimize=True)
    return path


if __name__ == "__main__":
    sys.exit(main())
