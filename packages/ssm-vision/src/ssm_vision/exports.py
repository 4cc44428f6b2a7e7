"""What `ssm-train export` writes of the models here, and which it finds by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ssm_core.export import Graph, model_graph
from ssm_core.specs import DataInfo, ExportSpec
from ssm_vision.generative.diffusion_model import DiffusionModel
from ssm_vision.generative.pixel_model import PixelModel
from ssm_vision.zoo import create_model, find, list_models


def graphs(model: nn.Module, info: DataInfo | None) -> Sequence[Graph] | None:
    """The graph of a generative model, which reads more than images; None for other models."""
    return None


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
