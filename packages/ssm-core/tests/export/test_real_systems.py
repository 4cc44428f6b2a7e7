"""Layers with complex states as ONNX files: classifiers, and states that come and go as pairs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssm_core import build_mixer
from ssm_core.block import Block
from ssm_core.export import Graph, export_onnx, onnx_outputs

WIDTH, CLASSES = 8, 3
#: a causal layer and one that reads both ways, with other options
LAYERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "s4d": (
        {"d_state": 8},
        {"bidirectional": True, "channels": 2, "n_ssm": 4, "disc": "bilinear", "init": "inv"},
    ),
    "s4": ({"d_state": 8}, {"bidirectional": True, "channels": 2, "n_ssm": 4, "l_max": 16}),
    "s5": (
        {"d_state": 8, "activation": "full_glu"},
        {"bidirectional": True, "conj_sym": False, "C_init": "complex_normal", "dt_max": 0.5},
    ),
}


class Classifier(nn.Module):
    """x (b, l, d) -> logits (b, classes), one mixer in front of the other."""

    def __init__(self, name: str) -> None:
        super().__init__()
        mixers = (build_mixer(name, WIDTH, options) for options in LAYERS[name])
        self.blocks = nn.Sequential(*(Block(WIDTH, mixer) for mixer in mixers))
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(x).mean(1))


class Piece(nn.Module):
    """A piece of a sequence and the state before it -> outputs and the state behind it."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        y, (after,) = self.layer(x, state=self.layer.state_type(before), return_state=True)
        return y, after


def sequences(batch: int, length: int) -> Tensor:
    return torch.randn(batch, length, WIDTH)


def assert_near(got: Tensor, expected: Tensor) -> None:
    """Within 1e-4 of the largest value."""
    largest = expected.abs().max()
    assert largest > 1e-2  # zeros would agree too
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4 * float(largest))


@pytest.fixture(scope="module", params=LAYERS)
def classifier(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[nn.Module, Path]:
    torch.manual_seed(0)
    model = Classifier(request.param).eval()
    names = {"x": {0: "batch", 1: "length"}}
    graph = Graph(
        "classifier", model, names, ("logits",), lambda n: (sequences(n["batch"], n["length"]),)
    )
    path = tmp_path_factory.mktemp("onnx") / "classifier.onnx"
    export_onnx(graph, path)
    return model, path


@pytest.mark.parametrize(("b", "l"), [(1, 1), (1, 300), (3, 2), (4, 17)])
def test_a_classifier_of_any_batch_and_length(
    classifier: tuple[nn.Module, Path], b: int, l: int
) -> None:
    model, path = classifier
    x = sequences(b, l)
    with torch.no_grad():
        assert_near(onnx_outputs(path, {"x": x})[0], model(x))


@pytest.mark.parametrize("steps", [None, 1])
@pytest.mark.parametrize("name", LAYERS)
def test_complex_states_are_pairs_of_numbers(name: str, steps: int | None, tmp_path: Path) -> None:
    layer = build_mixer(name, WIDTH, {"d_state": 8}).eval()
    axes = {0: "batch"} if steps else {0: "batch", 1: "length"}

    def example(sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
        (state,) = layer.initial_state(sizes["batch"])
        x = sequences(sizes["batch"], sizes.get("length", 1))
        return x, torch.randn_like(state)

    parts = [type(part) for part in layer.modules()]
    graph = Graph("piece", Piece(layer), {"x": axes, "s": {0: "batch"}}, ("y", "after"), example)
    export_onnx(graph, tmp_path / "piece.onnx")
    assert [type(part) for part in layer.modules()] == parts  # as it was
    x, before = example({"batch": 2, "length": steps or 9})
    y, after = onnx_outputs(tmp_path / "piece.onnx", {"x": x, "s": before})
    with torch.no_grad():
        expected, expected_after = graph.module(x, before)
    assert_near(y, expected)
    assert_near(after, torch.view_as_real(expected_after))
