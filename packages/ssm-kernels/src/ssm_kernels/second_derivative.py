"""Refuse to differentiate the gradients of a native kernel, instead of treating them as constants.

PyTorch's own `once_differentiable` notices only graphs through the incoming gradient: a gradient
penalty on top of a kernel would silently lose the part that flows through the kernel's inputs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from .errors import BackendError


def refuse_second_derivative(
    operator: str, gradients: Iterable[Tensor | None], inputs: Iterable[Tensor | None]
) -> tuple[Tensor | None, ...]:
    """Return the gradients, in a graph that raises where it is differentiated.

    Called from a backward pass; without `create_graph=True` there, it changes nothing.
    """
    if not torch.is_grad_enabled():
        return tuple(gradients)
    anchors = [x for x in inputs if x is not None and x.requires_grad]
    return tuple(None if g is None else _Refuse.apply(operator, g, *anchors) for g in gradients)


class _Refuse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, operator: str, gradient: Tensor, *anchors: Tensor) -> Tensor:
        ctx.operator = operator
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> None:
        raise BackendError(
            f"{ctx.operator}: the gradients of the native kernel cannot be differentiated again; "
            "pass backend='reference' for second derivatives"
        )
