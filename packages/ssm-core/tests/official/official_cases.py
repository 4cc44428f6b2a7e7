"""Layers to be written in official names and read back, and values of official implementations."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

from ssm_core import SequenceLayer, from_official

DATA = Path(__file__).parents[1] / "data"


class Golden(NamedTuple):
    """What an official implementation computed."""

    state_dict: dict[str, Tensor]
    x: Tensor
    y: Tensor
    metadata: dict[str, str]


def golden(name: str) -> Golden:
    with safe_open(DATA / f"{name}.safetensors", framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    state_dict = {k[3:]: v for k, v in tensors.items() if k.startswith("sd.")}
    return Golden(state_dict, tensors["x"], tensors["y"], metadata)


def moved(layer: SequenceLayer) -> SequenceLayer:
    """Move every parameter off its initial value, so that each one matters to the output."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return layer.eval()


@torch.no_grad()
def assert_reads_back(
    family: str, layer: SequenceLayer, state_dict: Any, **config: Any
) -> SequenceLayer:
    """The layer made from `state_dict` is `layer`: its class, its values, its output."""
    read = from_official(family, state_dict, **config).eval()
    assert type(read) is type(layer)
    expected = layer.state_dict()
    assert read.state_dict().keys() == expected.keys()
    for name, value in read.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0, msg=name)
        if value.numel():
            assert value.data_ptr() != expected[name].data_ptr(), name
    x = torch.randn(2, 9, layer.d_model)
    assert torch.equal(read(x), layer(x))
    return read
