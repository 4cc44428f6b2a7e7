"""What is exported: a module, what goes into it and comes out, and which sizes stay open."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ssm_core.specs import DataInfo

#: axis of a tensor -> the name of its size, which stays open
Axes = Mapping[int, str]


@dataclass(frozen=True)
class Graph:
    """One graph to export.

    Attributes:
        name: of its file, without an ending.
        module: called with one tensor per input; returns a tensor, or a tuple of them.
        inputs: name -> open sizes, in the order of the arguments.
        outputs: names, in the order of the results.
        example: sizes by name -> arguments of these sizes. The graph is traced with some, and
            compared with the module on others.
        limits: name of a size -> the largest that the model can take, where there is one.
    """

    name: str
    module: nn.Module
    inputs: Mapping[str, Axes]
    outputs: Sequence[str]
    example: Callable[[Mapping[str, int]], tuple[Tensor, ...]]
    limits: Mapping[str, int] = field(default_factory=dict)

    @property
    def sizes(self) -> list[str]:
        """Names of the open sizes."""
        return sorted({name for axes in self.inputs.values() for name in axes.values()})

    def example_to_trace(self) -> tuple[Tensor, ...]:
        """Arguments whose open sizes are all different and none is 0 or 1, which tracers fix."""
        return self._example(3, 2)

    def example_to_check(self) -> tuple[Tensor, ...]:
        """Arguments of other sizes."""
        return self._example(4, 5)

    def _example(self, first: int, then: int) -> tuple[Tensor, ...]:
        sizes = {name: first + then * i for i, name in enumerate(self.sizes)}
        return self.example({name: min(n, self.limits.get(name, n)) for name, n in sizes.items()})


def as_pairs(x: Tensor) -> Tensor:
    """A tensor as ONNX files have it: complex numbers as pairs of real ones, on a last axis."""
    return torch.view_as_real(x) if x.is_complex() else x


def model_graph(model: nn.Module, info: DataInfo) -> Graph:
    """A model of numbers, such as images: `inputs` (batch, ..) -> `outputs`, any batch."""

    def example(sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
        like = next(model.parameters())
        shape = (sizes["batch"], *info.input_shape)
        return (torch.randn(shape, dtype=like.dtype, device=like.device),)

    return Graph("model", model, {"inputs": {0: "batch"}}, ("outputs",), example)
