"""torch.export of a graph, with its sizes left open."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ssm_core.errors import ConfigError
from ssm_core.export.graphs import Graph, as_pairs

#: PyTorch 2.6 cannot trace a size that may be the largest int there is
_LARGEST = 2**31 - 1


class _Flat(nn.Module):
    """A module whose arguments are one list, so that their open sizes can be given as one."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *tensors: Tensor) -> Any:
        return self.model(*tensors)


def export_program(graph: Graph, *, for_onnx: bool = False) -> ExportedProgram:
    """Trace a graph. The program contains our operators: who loads it imports ssm_kernels first.

    Args:
        for_onnx: without the operators of single steps, which write into a state and which
            `run_decompositions` therefore cannot replace, and with complex inputs, outputs and
            layers in their real form.
    Raises:
        ConfigError: torch.export cannot trace the module with open sizes; says what it says.
    """
    largest = {name: graph.limits.get(name, _LARGEST) for name in graph.sizes}
    open_sizes = {name: Dim(name, min=1, max=most) for name, most in largest.items()}
    shapes = tuple(
        {axis: open_sizes[name] for axis, name in axes.items()} for axes in graph.inputs.values()
    )
    module, arguments = _Flat(graph.module.eval()), graph.example_to_trace()
    real: AbstractContextManager[None] = nullcontext()
    if for_onnx:
        from ssm_core.export.real_form import in_real_numbers

        real, arguments = in_real_numbers(module), tuple(map(as_pairs, arguments))
    try:
        # with gradients a step is a short sequence
        with real, torch.set_grad_enabled(for_onnx):
            return torch.export.export(module, arguments, dynamic_shapes=(shapes,), strict=False)
    except Exception as error:  # whatever the tracer, or a module under it, does not know to do
        reason = (str(error) or type(error).__name__).splitlines()[0]
        sizes = ", ".join(graph.sizes)
        raise ConfigError(
            f"{graph.name}: cannot be exported for any {sizes}: {reason}; expected a model whose "
            "graph is one for all of these, use another mixer"
        ) from error
