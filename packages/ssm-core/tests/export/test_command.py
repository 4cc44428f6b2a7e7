"""`ssm-train export` as a user types it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ssm_core.export import Graph, command, onnx_outputs
from ssm_core.train.restore import load_run

Train = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(train: Train, tmp_path: Path) -> Path:
    train("fit", "points-net", "--trainer.max_steps", "2")
    return tmp_path / "runs" / "points-net-001"


def test_a_run_as_an_onnx_file(train: Train, run: Path, tmp_path: Path, host) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = train("export", str(run), "--out", "there/files")
    path = tmp_path / "there" / "files" / "model.onnx"
    assert code == 0
    assert "inputs   (batch, 2) float32" in out
    assert "compared under onnxruntime at batch 4" in out
    assert out.splitlines()[-1] == "there/files/model.onnx"
    assert [p.name for p in (tmp_path / "there").iterdir()] == ["files"]
    x, model = torch.randn(6, 2), load_run(run, host=host).module
    torch.testing.assert_close(onnx_outputs(path, {"inputs": x})[0], model(x).detach())


def test_a_named_model_as_a_program(train: Train, tmp_path: Path) -> None:
    code, out, _ = train("export", "net", "--format", "torch", "--out", "net")
    assert code == 0
    assert "compared under torch.export at batch 4" in out
    program = torch.export.load(tmp_path / "net" / "model.pt2").module()
    assert program(torch.randn(9, 2)).shape == (9, 2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing"], "nothing: neither a run folder nor a model that can be exported; .* nets"),
        (["net", "--out", "."], "--out .: exists and is not empty, expected a new folder"),
        (["net", "--format", "pdf"], "--format"),
    ],
)
def test_bad_input(train: Train, tmp_path: Path, words: list[str], message: str) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = train("export", "--out", "new", *words)
    assert code == 2
    assert re.search(message, err)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_file_that_computes_something_else_does_not_stay(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fickle(nn.Module):
        """Frozen while it is traced, another value whenever it is called."""

        calls = 0.0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return x + self.calls

    def example(sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
        return (torch.zeros(sizes["batch"], 2),)

    graph = Graph("fickle", Fickle(), {"x": {0: "batch"}}, ("y",), example)
    monkeypatch.setattr(command, "_graphs", lambda host, arguments: [graph])
    code, _, err = train("export", "net", "--format", "torch", "--out", "new")
    assert code == 2
    assert "outputs differ by" in err
    assert "nothing was written" in err
    assert not list(tmp_path.iterdir())
