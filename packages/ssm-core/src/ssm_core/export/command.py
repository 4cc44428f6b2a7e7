"""`ssm-train export RUN_OR_MODEL --format onnx|torch --out FOLDER`."""

from __future__ import annotations

import argparse
import importlib.util
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from ssm_core.cli.parsing import OneLineParser
from ssm_core.cli.tables import print_columns
from ssm_core.errors import ConfigError, SsmError
from ssm_core.export.graphs import Axes, Graph, as_pairs, model_graph
from ssm_core.plugins import PluginHost
from ssm_core.specs import DataInfo, ExportSpec
from ssm_core.train.checkpoint import write_atomically

#: --format -> ending of the files
ENDINGS = {"onnx": ".onnx", "torch": ".pt2"}
#: how far a file may be from the model, relative to the largest number, absolute below 1
TOLERANCE = 1e-4


class ExportError(SsmError):
    """A file was written that does not compute what the model does."""


def export_command(host: PluginHost, words: Sequence[str]) -> int:
    """Write the graphs of a model, run them, and compare."""
    arguments = _parser(host).parse_args(list(words))
    out: Path = arguments.out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out {out}: exists and is not empty, expected a new folder")
    if arguments.format == "onnx":
        from ssm_core.export.to_onnx import require_onnx

        require_onnx("onnx", "onnxscript")
    graphs = _graphs(host, arguments)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        part = Path(folder) / "part"
        for graph in graphs:
            path = part / f"{graph.name}{ENDINGS[arguments.format]}"
            print(f"{graph.name}: writing ...", flush=True)
            note = write(graph, path)
            print_columns([*_rows(graph, path), ("", "", note)], indent=2)
        if out.exists():
            out.rmdir()
        os.replace(part, out)
    for graph in graphs:
        print(out / f"{graph.name}{ENDINGS[arguments.format]}")
    return 0


def write(graph: Graph, path: Path) -> str:
    """Write a graph as .onnx or .pt2 and compare what the file gives; return the outcome in words.

    Raises:
        ConfigError: the model has no such form, or a package is missing.
        ExportError: the file computes something else than the model.
    """
    examples = graph.example_to_check()
    with torch.no_grad():
        expected = graph.module.eval()(*examples)
    expected = (expected,) if isinstance(expected, Tensor) else expected
    if path.suffix == ENDINGS["onnx"]:
        from ssm_core.export.to_onnx import export_onnx, onnx_outputs

        export_onnx(graph, path)
        if importlib.util.find_spec("onnxruntime") is None:
            return "not compared: onnxruntime is not installed"
        got: Sequence[Tensor] = onnx_outputs(path, dict(zip(graph.inputs, examples, strict=True)))
        runner = "onnxruntime"
        expected = [as_pairs(x) for x in expected]
    else:
        from ssm_core.export.program import export_program

        program = export_program(graph)
        write_atomically(path, lambda part: _save(program, part))
        with torch.no_grad():
            result = torch.export.load(path).module()(*examples)
        got = (result,) if isinstance(result, Tensor) else result
        runner = "torch.export"
    distance = _distance(got, expected)
    sizes = ", ".join(f"{name} {n}" for name, n in _sizes(graph, examples).items())
    if not distance <= TOLERANCE:
        raise ExportError(
            f"{graph.name}: under {runner} at {sizes} the outputs differ by {distance:.1e} from "
            f"the model's, expected at most {TOLERANCE:.0e}; nothing was written"
        )
    return f"compared under {runner} at {sizes}: outputs differ by at most {distance:.1e}"


def _save(program: ExportedProgram, path: Path) -> None:
    with path.open("wb") as file:  # a path would need another ending than a temporary file has
        torch.export.save(program, file)


def _graphs(host: PluginHost, arguments: argparse.Namespace) -> Sequence[Graph]:
    model, info = _model(host, arguments)
    for registered in host.table("exports").values():
        spec: ExportSpec = registered.spec
        graphs = spec.graphs(model, info)
        if graphs is not None:
            return graphs
    if info is None:
        raise ConfigError(f"{arguments.model}: no package says what a {type(model).__name__} reads")
    return [model_graph(model, info)]


def _model(host: PluginHost, arguments: argparse.Namespace) -> tuple[nn.Module, DataInfo | None]:
    source, checkpoint = arguments.model, arguments.checkpoint
    if (Path(source) / "config.yaml").is_file():
        if checkpoint is not None:
            raise ConfigError(f"--checkpoint goes with the name of a model; {source} is a run")
        from ssm_core.train.restore import load_run

        run = load_run(Path(source), host=host)
        return run.module, run.info
    for registered in host.table("exports").values():
        spec: ExportSpec = registered.spec
        model = spec.load(source, checkpoint)
        if model is not None:
            return model, getattr(model, "info", None)
    kinds = [f"{name} ({r.spec.summary})" for name, r in host.table("exports").items()]
    raise ConfigError(
        f"{source}: neither a run folder nor a model that can be exported; there are "
        + (", ".join(kinds) or "none besides runs")
    )


def _distance(got: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest difference, each output's relative to its largest number if that is above 1."""
    worst = 0.0
    for a, b in zip(got, expected, strict=True):
        if a.shape != b.shape:
            return float("inf")
        if b.numel():
            difference = (a.double() - b.cpu().double()).abs().max()
            worst = max(worst, float(difference / b.cpu().double().abs().max().clamp(min=1)))
    return worst


def _sizes(graph: Graph, examples: Sequence[Tensor]) -> dict[str, int]:
    return {
        name: x.shape[axis]
        for x, axes in zip(examples, graph.inputs.values(), strict=True)
        for axis, name in axes.items()
    }


def _rows(graph: Graph, path: Path) -> list[tuple[str, str, str]]:
    examples = graph.example_to_trace()
    if path.suffix == ENDINGS["onnx"]:
        examples = tuple(map(as_pairs, examples))
    shapes = [_shape(x, axes) for x, axes in zip(examples, graph.inputs.values(), strict=True)]
    rows = [("input", name, shape) for name, shape in zip(graph.inputs, shapes, strict=True)]
    return [*rows, *(("output", name, "") for name in graph.outputs)]


def _shape(x: Tensor, axes: Axes) -> str:
    sizes = ", ".join(axes.get(i, str(n)) for i, n in enumerate(x.shape))
    return f"({sizes}) {str(x.dtype).removeprefix('torch.')}"


def _parser(host: PluginHost) -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="ssm-train export",
        description="Write a trained model for other programs, batch and length left open.",
    )
    kinds = "; ".join(f"{name}: {r.spec.summary}" for name, r in host.table("exports").items())
    parser.add_argument("model", help=f"run folder, or a model by name ({kinds})")
    parser.add_argument(
        "--format",
        choices=list(ENDINGS),
        default="onnx",
        help="onnx (extra `onnx`), or torch: programs of torch.export, which need ssm_kernels",
    )
    parser.add_argument("--out", type=Path, required=True, help="new folder to write")
    parser.add_argument("--checkpoint", help="weights, for the name of a model that has none")
    return parser
