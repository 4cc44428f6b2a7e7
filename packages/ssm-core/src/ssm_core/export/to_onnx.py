"""A graph as an ONNX file, and what that file computes.

The steps of a scan become the ONNX operator `Scan`, exact and of any length, but one step after the
other: such a file is for where PyTorch is not, not for speed.
"""

from __future__ import annotations

import importlib.util
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssm_core.errors import ConfigError
from ssm_core.export.graphs import Graph
from ssm_core.export.program import export_program
from ssm_core.train.checkpoint import write_atomically

OPSET = 18
_NEEDED = ("onnx", "onnxscript")


def export_onnx(graph: Graph, path: Path) -> None:
    """Write a graph as an ONNX file, all or nothing; above 2 GB the weights lie beside it.

    Raises:
        ConfigError: the extra `onnx` is not installed, PyTorch is too old, or the model contains
            something that has no ONNX form; names it.
    """
    require_onnx(_NEEDED)
    program = _reduced(graph)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about versions of opsets and names of axes
        converted = torch.onnx.export(
            program,
            (),
            dynamo=True,
            verbose=False,
            optimize=False,
            opset_version=OPSET,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            custom_translation_table=_translations(),
        )
    assert converted is not None
    write_atomically(path, converted.save)


def require_onnx(packages: Sequence[str]) -> None:
    """Raise ConfigError if one of the packages is missing."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"ONNX needs {' and '.join(missing)}, which this environment lacks: "
            "pip install 'ssm-core[onnx]'"
        )


def _reduced(graph: Graph) -> Any:
    from ssm_core.export.decompositions import decompositions

    program = export_program(graph, decomposable=True)
    return program.run_decompositions(decompositions())


def _translations() -> dict[Any, Any]:
    from ssm_core.export.onnx_scan import recurrence

    return {torch.ops.ssm_core.recurrence.default: recurrence}


def onnx_outputs(path: Path, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    """Run an ONNX file under onnxruntime, on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    arrays = session.run(None, {name: x.detach().cpu().numpy() for name, x in inputs.items()})
    return [torch.from_numpy(x) for x in arrays]
