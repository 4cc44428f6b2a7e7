"""One implementation on one case, and the problem it is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .floors import Works

#: Name of an output or gradient -> its value in the layout of this library.
Results = dict[str, Tensor]
Action = Callable[[], object]


@dataclass(frozen=True)
class Subject:
    """An implementation, ready to run.

    Attributes:
        forward: runs the forward pass, without a graph.
        backward: runs the forward pass and returns what runs the backward pass; None: has none.
        results: everything it computes, for comparison.
        slow: takes so long that few runs have to do.
    """

    name: str
    forward: Action
    backward: Callable[[], Action] | None
    results: Callable[[], Results]
    slow: bool = False

    def prepare(self, what: str) -> Action:
        """What to time for a pass."""
        if what == "forward":
            return self.forward
        assert self.backward is not None
        return self.backward() if what == "backward" else lambda: self._both()

    def _both(self) -> object:
        assert self.backward is not None
        return self.backward()()


@dataclass(frozen=True)
class Problem:
    """A case with its inputs.

    Attributes:
        exact: the results in float64.
        subjects: name -> makes the subject; raises if that is not installed or cannot do it. The
            first is ours.
        works: what cannot be avoided, per pass; those passes are timed, and their sum.
        steps: units of work, for the rate.
        tolerance: largest error of a result, relative to its largest value.
    """

    name: str
    exact: Callable[[], Results]
    subjects: Mapping[str, Callable[[], Subject]]
    works: Works
    steps: int
    tolerance: float

    @property
    def passes(self) -> tuple[str, ...]:
        both = "backward" in self.works
        return ("forward", "backward", "forward+backward") if both else ("forward",)


def differentiable(
    name: str,
    call: Callable[[], Tensor],
    leaves: Mapping[str, Tensor],
    grad_y: Tensor,
    *,
    turned: bool = False,
    slow: bool = False,
) -> Subject:
    """The subject of a function with gradients; `turned`: its tensors (b, ., .) are (b, d, l)."""

    def forward() -> object:
        with torch.no_grad():
            return call()

    def backward() -> Action:
        y = call()
        return lambda: torch.autograd.grad(y, list(leaves.values()), grad_y)

    def results() -> Results:
        y = call()
        gradients = torch.autograd.grad(y, list(leaves.values()), grad_y)
        named = {f"grad {k}": g for k, g in zip(leaves, gradients, strict=True)}
        return {k: turn(v, turned) for k, v in {"y": y.detach(), **named}.items()}

    return Subject(name, forward, backward, results, slow)


def in_place(
    name: str, state: Tensor, call: Callable[[Tensor], Tensor], slow: bool = False
) -> Subject:
    """The subject of a function that advances a state."""
    kept = state.clone()

    def results() -> Results:
        fresh = state.clone()
        y = call(fresh)
        return {"y": y, "state": fresh}

    return Subject(name, lambda: call(kept), None, results, slow)


def turn(tensor: Tensor, turned: bool) -> Tensor:
    """(b, d, l) as (b, l, d), and (b, g, n, l) as (b, l, g, n); parameters as they are."""
    if not turned or tensor.dim() < 3:
        return tensor
    return tensor.transpose(1, 2) if tensor.dim() == 3 else tensor.permute(0, 3, 1, 2)


def leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().clone(memory_format=torch.contiguous_format).requires_grad_()


def doubled(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: x.detach().double().requires_grad_() for name, x in tensors.items()}
