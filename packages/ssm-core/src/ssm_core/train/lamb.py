"""LAMB: Adam whose step is as long as the layer's weights, for very large batches.

Source: You et al. 2020, arXiv:1904.00962, algorithm 2.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Lamb(torch.optim.Optimizer):
    """x <- x - lr |x| / |u| u with u = m / (sqrt(v) + eps) + weight_decay x.

    m and v are Adam's moments with their bias corrected. As in the authors' program, parameters
    without weight decay (vectors, and what is marked) take Adam's step as it is: the norm of a
    vector of zeros or ones says nothing about a good step. Where |x| or |u| is 0, the ratio is 1.

    Args:
        groups: parameter groups, each with its `weight_decay`.
        lr: learning rate.
        betas: decay rates of the two moments.
        eps: keeps the division finite.

    Cost: two more tensors per parameter; nothing is read back from the device.
    """

    def __init__(
        self,
        groups: Any,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step for every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if not state:
            state["step"] = 0
            state["mean"] = torch.zeros_like(parameter)
            state["square"] = torch.zeros_like(parameter)
        state["step"] += 1
        beta1, beta2 = group["betas"]
        state["mean"].lerp_(gradient, 1 - beta1)
        state["square"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        mean = state["mean"] / (1 - beta1 ** state["step"])
        square = state["square"] / (1 - beta2 ** state["step"])
        update = mean / (square.sqrt() + group["eps"])
        if group["weight_decay"]:
            update.add_(parameter, alpha=group["weight_decay"])
            size, length = parameter.norm(), update.norm()
            ratio = torch.where((size > 0) & (length > 0), size / length, 1.0)
            update.mul_(ratio)
        parameter.sub_(update, alpha=group["lr"])
