"""ONNX files: what they compute at other sizes than those they were traced with, and refusals."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from ssm_core.errors import ConfigError
from ssm_core.export import Graph, export_onnx, onnx_outputs, to_onnx
from ssm_core.layers.bimamba import BiMamba
from ssm_core.layers.mamba import Mamba
from ssm_core.norm import GatedRMSNorm

WIDTH = 8


def sequence_graph(layer: nn.Module) -> Graph:
    def example(sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
        return (torch.randn(sizes["batch"], sizes["length"], WIDTH),)

    return Graph("layer", layer, {"x": {0: "batch", 1: "length"}}, ("y",), example)


class Gate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = GatedRMSNorm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x, x.flip(-1))


class Both(nn.Module):
    """Two layers in one file: an export costs more for itself than for what it exports."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(Mamba(WIDTH), BiMamba(WIDTH), Gate())

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x * 0.01)  # small, so that the epsilon of the norm counts


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Graph, Path]:
    graph = sequence_graph(Both().eval())
    path = tmp_path_factory.mktemp("onnx") / "layer.onnx"
    export_onnx(graph, path)
    return graph, path


@pytest.mark.parametrize(("b", "l"), [(1, 1), (1, 40), (3, 2), (4, 17)])
def test_any_batch_and_length(file: tuple[Graph, Path], b: int, l: int) -> None:
    graph, path = file
    x = torch.randn(b, l, WIDTH)
    (got,) = onnx_outputs(path, {"x": x})
    with torch.no_grad():
        torch.testing.assert_close(got, graph.module(x), rtol=1e-4, atol=1e-5)


def test_the_file_names_its_sizes_and_stands_alone(file: tuple[Graph, Path]) -> None:
    _, path = file
    model = onnx.load(path)
    onnx.checker.check_model(model)
    for value in (*model.graph.input, *model.graph.output):
        sizes = [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
        assert sizes == ["batch", "length", WIDTH]
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_complex_numbers_are_refused_with_their_place(tmp_path: Path) -> None:
    class Spectrum(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.view_as_complex(x.unflatten(-1, (-1, 2))).abs()

    graph = sequence_graph(nn.Sequential(Spectrum()))
    with pytest.raises(ConfigError, match=r"Spectrum.*complex numbers.*--format torch"):
        export_onnx(graph, tmp_path / "spectrum.onnx")
    assert not list(tmp_path.iterdir())


def test_what_the_converter_lacks_is_one_line(tmp_path: Path) -> None:
    class Unusual(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.igamma(x.abs(), x.abs() + 1)

    with pytest.raises(ConfigError, match="igamma") as error:
        export_onnx(sequence_graph(Unusual()), tmp_path / "unusual.onnx")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_missing_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        to_onnx.importlib.util, "find_spec", lambda name: None if name == "onnx" else found(name)
    )
    with pytest.raises(ConfigError, match=r"onnx cannot be found.*'ssm-core\[onnx\]'"):
        export_onnx(sequence_graph(nn.Identity()), tmp_path / "x.onnx")
