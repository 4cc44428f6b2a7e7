"""A graph as an ONNX file, and what that file computes.

The steps of a scan become the ONNX operator `Scan`: exact, of any length, one step after the other.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from ssm_core.errors import ConfigError
from ssm_core.export.graphs import Graph, as_pairs
from ssm_core.export.program import export_program

OPSET = 18


def export_onnx(graph: Graph, path: Path) -> None:
    """Write a graph as an ONNX file, all or nothing; above 2 GB the weights lie beside it.

    Complex inputs and outputs are pairs of real numbers in the file, on a last axis.

    Raises:
        ConfigError: the extra `onnx` is not installed, or the model computes something that has no
            ONNX form.
    """
    require_onnx("onnx", "onnxscript")
    from ssm_core.export.decompositions import decompositions

    program = export_program(graph, for_onnx=True).run_decompositions(decompositions())
    _check_real(graph, program)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        part = Path(folder) / path.name  # a file of weights is called after it
        with _quiet():
            _converted(graph, program).save(part)
        _name_sizes(graph, part)
        for file in sorted(part.parent.iterdir(), key=lambda file: file == part):
            os.replace(file, path.parent / file.name)  # the graph last


def onnx_outputs(path: Path, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    """Run an ONNX file under onnxruntime, on the CPU. Complex inputs become pairs, as its outputs.

    Raises:
        ConfigError: onnxruntime is not installed.
    """
    require_onnx("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors: its warnings are about its own optimizations
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    pairs = {name: as_pairs(x.detach()).cpu().numpy() for name, x in inputs.items()}
    arrays = session.run(None, pairs)
    return [torch.from_numpy(x) for x in arrays]


def require_onnx(*packages: str) -> None:
    """Raise ConfigError if one of the packages is missing."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"{' and '.join(missing)} cannot be found, which ONNX needs: "
            "pip install 'ssm-core[onnx]'"
        )


def _converted(graph: Graph, program: ExportedProgram) -> Any:
    from ssm_core.export.onnx_scan import linear_systems, recurrence

    try:
        return torch.onnx.export(
            program,
            (),
            dynamo=True,
            verbose=False,
            # its optimizer takes the epsilon of a norm for zero and leaves it out
            optimize=False,
            opset_version=OPSET,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            custom_translation_table={
                torch.ops.ssm_core.recurrence.default: recurrence,
                torch.ops.ssm_core.linear_systems.default: linear_systems,
            },
        )
    except torch.onnx.errors.OnnxExporterError as error:
        causes = list(_causes(error))
        raise ConfigError(
            f"{graph.name} has no ONNX form: {causes[-1].splitlines()[0]}; use --format torch"
        ) from error


def _causes(error: BaseException | None) -> Iterator[str]:
    while error is not None:
        yield str(error) or type(error).__name__
        error = error.__cause__


def _check_real(graph: Graph, program: ExportedProgram) -> None:
    """Refuse complex numbers, which ONNX has not; says where they are."""
    for node in program.graph.nodes:
        value = node.meta.get("val")
        values = value if isinstance(value, (tuple, list)) else [value]
        if any(isinstance(x, Tensor) and x.is_complex() for x in values):
            inside = list(node.meta.get("nn_module_stack", {}).values())
            where = f"{inside[-1][0]} ({inside[-1][1]})" if inside else str(node)
            raise ConfigError(
                f"{graph.name} has no ONNX form: {where} computes with complex numbers, which ONNX "
                "lacks; use --format torch, or another mixer such as mamba or s4d"
            )


def _name_sizes(graph: Graph, path: Path) -> None:
    """Give the open sizes in the file, which the tracer called s23 and the like, their names."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    names: dict[str, str] = {}
    for value in model.graph.input:
        for axis, name in graph.inputs[value.name].items():
            names[value.type.tensor_type.shape.dim[axis].dim_param] = name
    symbols = re.compile("|".join(rf"\b{re.escape(old)}\b" for old in names))
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param:
                size.dim_param = symbols.sub(lambda found: names[found[0]], size.dim_param)
    onnx.save(model, path)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the converter's remarks on its own opsets and functions."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
