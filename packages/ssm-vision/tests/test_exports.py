"""Every family of models under torch.export, torch.compile and, where it is real, ONNX."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ssm_core import DataInfo, make_config
from ssm_core.errors import CheckpointError
from ssm_core.export import Graph, export_onnx, export_program, model_graph, onnx_outputs
from ssm_core.plugins import plugin_host
from ssm_vision import exports
from ssm_vision.zoo import create_model

MODELS: dict[str, tuple[str, int, Mapping[str, Any]]] = {
    "patches": ("patch-classifier", 8, {"d_model": 8, "n_layers": 1}),
    "vim": ("vim", 16, {"patch_size": 8, "stride": 8, "embed_dim": 8, "depth": 1}),
    "mambavision": (
        "mambavision",
        64,
        {"dim": 8, "in_dim": 8, "depths": (1, 1, 2, 2), "num_heads": (2, 2), "windows": (4, 2)},
    ),
    "vmamba": ("vmamba", 16, {"depths": (1, 1), "dims": (8, 16)}),
    "vmunet": ("vmunet", 16, {"depths": (1, 1), "depths_decoder": (1, 1), "dims": (8, 16)}),
    "s4nd-vit": ("s4nd-vit", 16, {"patch": 8, "d_model": 8, "n_layers": 1}),
    "pixels": ("pixel-model", 4, {"d_model": 8, "n_layers": 1}),
    "diffusion": ("diffusion-model", 8, {"d_model": 8, "n_layers": 1}),
}
#: under torch.compile: one per way of mixing; the others are made of the same parts
COMPILED = ("vim", "mambavision", "vmamba", "s4nd-vit")
#: Mamba both ways, beside attention and convolutions, and in four directions
IN_ONNX = ("vim", "mambavision", "vmamba")


def build(name: str) -> tuple[nn.Module, DataInfo]:
    family, side, options = MODELS[name]
    channels = 1 if family in ("pixel-model", "diffusion-model") else 3
    info = DataInfo((channels, side, side), 5)
    spec = plugin_host().get("models", family)
    return spec.build(make_config(spec.config, options, "model"), info).eval(), info


def graph_of(name: str) -> Graph:
    model, info = build(name)
    graphs = exports.graphs(model, info)
    return model_graph(model, info) if graphs is None else graphs[0]


@pytest.mark.parametrize("name", MODELS)
def test_a_program_for_any_batch(name: str) -> None:
    graph = graph_of(name)
    program = export_program(graph).module()
    arguments = graph.example_to_check()
    assert {len(x) for x in arguments} == {4}  # traced with another batch
    with torch.no_grad():
        torch.testing.assert_close(
            program(*arguments), graph.module(*arguments), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("name", IN_ONNX)
def test_onnxruntime_gives_what_the_model_gives(name: str, tmp_path: Path) -> None:
    graph = graph_of(name)
    export_onnx(graph, tmp_path / "model.onnx")
    (images,) = graph.example_to_check()
    for batch in (images, images[:1]):
        (got,) = onnx_outputs(tmp_path / "model.onnx", {"inputs": batch})
        with torch.no_grad():
            expected = graph.module(batch)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    assert expected.abs().max() > 1e-3  # zeros would agree too


@pytest.fixture
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize("name", COMPILED)
def test_one_graph_under_torch_compile(name: str) -> None:
    model, info = build(name)
    images = torch.randn(2, *info.input_shape)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(images), model(images), rtol=1e-4, atol=1e-5)


def test_models_by_name() -> None:
    model = exports.load("mnist_bimamba", None)
    assert model is not None
    assert not model.training
    assert exports.load("no-such-model", None) is None
    with pytest.raises(CheckpointError, match="no weights come with the package"):
        exports.load("mambavision_tiny", None)


def test_weights_for_a_name(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    trained = create_model("mnist_causal", pretrained=True)
    save_file(dict(trained.state_dict()), tmp_path / "weights.safetensors")
    loaded = exports.load("mnist_causal", str(tmp_path / "weights.safetensors"))
    assert loaded is not None
    images = torch.randn(2, 1, 28, 28)
    with torch.no_grad():
        torch.testing.assert_close(loaded(images), trained(images))
