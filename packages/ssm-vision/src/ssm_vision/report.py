"""Pictures of trained image models for `ssm-train report`: which function draws which task."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from ssm_core import Picture, Remark
from ssm_core.config import one_line
from ssm_core.errors import SsmError
from ssm_vision.classification_pictures import draw_classification
from ssm_vision.generative.samples import draw_samples
from ssm_vision.model_pictures import draw_model
from ssm_vision.scene import Painter, Scene
from ssm_vision.segmentation_pictures import draw_segmentation

log = logging.getLogger(__name__)

#: name of a task -> what draws its runs. Runs of other tasks are left alone.
PAINTERS: dict[str, Painter] = {
    "classification": draw_classification,
    "segmentation": draw_segmentation,
    "pixels": draw_samples,
    "diffusion": draw_samples,
}


def draw_runs(runs: Sequence[Path], folder: Path) -> list[Picture | Remark]:
    """Draw the pictures of all runs whose task is in `PAINTERS` into `folder`.

    A run that cannot be drawn is named, on stderr and in a remark, and does not stop the others.
    """
    from ssm_core.train.report import run_names

    drawn: list[Picture | Remark] = []
    for run, name in zip(runs, run_names(runs), strict=True):
        try:
            drawn += draw_run(run, name, folder)
        except Exception as error:  # whatever a picture trips over, the other runs have theirs
            reason = one_line(error) if isinstance(error, SsmError) else repr(error)
            log.warning("no pictures of %s: %s", run, reason)
            drawn.append(Remark(run, f"no pictures: {reason}"))
    return drawn


def draw_run(run: Path, name: str, folder: Path) -> list[Picture]:
    """Draw the pictures of one run; none if its task is not in `PAINTERS`.

    Args:
        name: what tables and titles call the run.
    Raises:
        SsmError: the run has no weights, or its data cannot be had.
    """
    from ssm_core.train.resolve import read_yaml
    from ssm_core.train.restore import load_run

    task = read_yaml(run / "config.yaml").get("task", {}).get("name")
    if task not in PAINTERS:
        return []
    device = "cuda" if torch.cuda.is_available() else "cpu"
    restored = load_run(run, device)
    data = restored.config.specs["data"].build(restored.config.typed["data"])
    scene = Scene(restored, data, name, folder, device)
    return PAINTERS[task](scene) + draw_model(scene)
