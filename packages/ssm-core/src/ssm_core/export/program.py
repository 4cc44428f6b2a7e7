"""torch.export of a graph, with its sizes left open."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ssm_core.export.graphs import Graph


class _Flat(nn.Module):
    """A module whose arguments are one list, so that their open sizes can be given as one."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *tensors: Tensor) -> Any:
        return self.model(*tensors)


def export_program(graph: Graph, *, decomposable: bool = False) -> ExportedProgram:
    """Trace a graph. The program contains our operators: who loads it imports ssm_kernels first.

    Args:
        decomposable: without the operators of single steps, which write into a state and which
            `run_decompositions` therefore cannot replace.
    Raises:
        Whatever torch.export raises where a model cannot be traced.
    """
    open_sizes = {name: Dim(name, min=1, max=graph.limits.get(name)) for name in graph.sizes}
    shapes = tuple(
        {axis: open_sizes[name] for axis, name in axes.items()} for axes in graph.inputs.values()
    )
    module = _Flat(graph.module.eval())
    with torch.set_grad_enabled(decomposable):  # with gradients a step is a short sequence
        return torch.export.export(
            module, graph.example_to_trace(), dynamic_shapes=(shapes,), strict=False
        )
