"""What `ssm-train export` writes of the models here, and which it finds by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ssm_core.export import Graph
from ssm_core.specs import DataInfo, ExportSpec
from ssm_vision.generative.diffusion_model import DiffusionModel
from ssm_vision.generative.pixel_model import PixelModel
from ssm_vision.zoo import create_model, list_models


def graphs(model: nn.Module, info: DataInfo | None) -> Sequence[Graph] | None:
    """The graph of a generative model, which reads more than images; None for other models.

    A pixel model gives the logits of every pixel; a diffusion model what its process predicts, one
    step of drawing an image.
    """
    if not isinstance(model, (PixelModel, DiffusionModel)):
        return None
    names = ["images"]
    if isinstance(model, DiffusionModel):
        names.append("times")
    if model.config.conditional:
        names.append("labels")
    shape, classes = model.info.input_shape, model.info.n_outputs

    def example(sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
        b = sizes["batch"]
        drawn = {
            "images": torch.randn(b, *shape),
            "times": torch.randint(1, 10, (b,)),
            "labels": torch.randint(classes, (b,)),
        }
        return tuple(drawn[name] for name in names)

    return [Graph("model", model, {name: {0: "batch"} for name in names}, ("outputs",), example)]


def load(source: str, checkpoint: str | None) -> nn.Module | None:
    """A model of the zoo with its weights; None: no such name."""
    if source not in list_models():
        return None
    return create_model(source, pretrained=checkpoint is None, checkpoint=checkpoint)


EXPORT = ExportSpec(
    name="image models",
    summary="images in, logits out; a run, mnist_*, or a name of the zoo with --checkpoint",
    load=load,
    graphs=graphs,
)
