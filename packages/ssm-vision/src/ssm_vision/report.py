"""Pictures of trained patch classifiers for `ssm-train report`."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ssm_core.errors import SsmError
from ssm_vision import visualize
from ssm_vision.classifier import PatchClassifier
from ssm_vision.examples import choose

if TYPE_CHECKING:
    from ssm_core import DataBundle
    from ssm_core.train.restore import RestoredRun

log = logging.getLogger(__name__)

N_SHOWN = 8
#: enough for MNIST and CIFAR-10 whole; a larger set would make a report slow on a CPU
MOST_IMAGES = 10_000


def draw_runs(runs: Sequence[Path], folder: Path) -> list[Path]:
    """Draw `confusion-RUN.png` and, for Mamba mixers, `delta-RUN.png` for every run of a patch
    classifier. A run that cannot be drawn is named on stderr and does not stop the others."""
    pictures: list[Path] = []
    for run in runs:
        try:
            pictures += draw_run(run, folder)
        except SsmError as error:
            log.warning("no pictures of %s: %s", run, error)
    return pictures


def draw_run(run: Path, folder: Path) -> list[Path]:
    """Draw the pictures of one run; none if its model is not a patch classifier.

    Raises:
        SsmError: the run has no weights, or its data cannot be had.
    """
    from ssm_core.train.resolve import read_yaml
    from ssm_core.train.restore import load_run

    if read_yaml(run / "config.yaml").get("model", {}).get("name") != "patch-classifier":
        return []
    restored = load_run(run)
    model = restored.module
    assert isinstance(model, PatchClassifier)
    bundle = restored.config.specs["data"].build(restored.config.typed["data"])
    labels, predictions = predict(restored, bundle)
    source = f"test images of {restored.config.specs['data'].name}"
    counts = torch.zeros(model.info.n_outputs, model.info.n_outputs, dtype=torch.int64)
    counts.index_put_((labels, predictions), torch.ones_like(labels), accumulate=True)
    confusion = visualize.confusion_figure(counts, model.info.labels, f"{run.name}: {source}")
    pictures = [visualize.save(confusion, folder / f"confusion-{run.name}.png")]
    if model.has_step_sizes and len(labels):
        shown = examples_of(bundle, choose(labels, predictions, N_SHOWN), source)
        figure = visualize.delta_figure(model, shown, delta_title(run.name))
        pictures.append(visualize.save(figure, folder / f"delta-{run.name}.png"))
    return pictures


def delta_title(name: str) -> str:
    """Heading of a Delta picture."""
    return f"{name}: step size $\\Delta$ (bright: the patch is written into the state)"


@torch.no_grad()
def predict(restored: RestoredRun, bundle: DataBundle) -> tuple[Tensor, Tensor]:
    """True and predicted classes (n,) of the first `MOST_IMAGES` evaluation images, in order."""
    from ssm_core.train.batches import eval_loader

    loader = eval_loader(bundle, restored.config.loader, rank=0, world=1)
    enough = -(-MOST_IMAGES // restored.config.loader.eval_batch_size)
    labels, predictions = [], []
    for images, truth in itertools.islice(loader, enough):
        labels.append(truth)
        predictions.append(restored.module(images).argmax(dim=1))
    return torch.cat(labels), torch.cat(predictions)


def examples_of(bundle: DataBundle, indices: Sequence[int], source: str) -> visualize.Examples:
    """These evaluation images as examples to show."""
    pairs = [bundle.evaluation[index] for index in indices]
    images = torch.stack([image for image, _ in pairs])
    labels = torch.tensor([int(label) for _, label in pairs])
    return visualize.Examples(images, labels, source)
