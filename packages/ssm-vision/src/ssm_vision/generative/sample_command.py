"""`ssm-train sample RUN`: draw images with a trained model."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from ssm_vision.generative.samples import SampleOptions, run_samples, save_grid


def configure(parser: Any) -> None:
    """Add the arguments of the command."""
    parser.add_argument("run", type=str, help="run folder of a pixel-model or diffusion-model")
    parser.add_argument("--out", type=str, default="samples.png", help="PNG file to write")
    parser.add_argument("--device", type=str, default="cpu", help="cpu, cuda, cuda:1, mps, ...")
    parser.add_class_arguments(SampleOptions, as_group=False)


def run(arguments: Any) -> int:
    """Draw the picture and print its path."""
    options = SampleOptions(**{f.name: getattr(arguments, f.name) for f in fields(SampleOptions)})
    images, columns = run_samples(Path(arguments.run), options, arguments.device)
    print(save_grid(images, columns, Path(arguments.out)))
    return 0
