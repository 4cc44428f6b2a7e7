"""Optimizer, weight-decay groups and learning-rate schedule of a run."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from ssm_core.train.lamb import Lamb
from ssm_core.train.layer_decay import Rates, decayed_rates, own_rates
from ssm_core.train.options import OptimOptions


def parameter_groups(
    module: nn.Module, weight_decay: float, rates: Rates = own_rates
) -> list[dict[str, object]]:
    """Groups for an optimizer: one per different learning rate and weight decay.

    The first has the global values and holds the matrices; the second the vectors and what opts out
    by the attribute `_no_weight_decay = True` (A_log and D do; pulling A_log to 0 would pull every
    time constant to the same value), without decay. Parameters with an attribute `_optim`, a dict
    with "lr", "weight_decay" or both (`ssm_core.init.learn_at` sets it), have a group per different
    dict; what the dict leaves out is as it would be without it.

    Args:
        rates: learning rate from a parameter's name and its own one, for layer decay.
    """
    groups: dict[tuple[object, object], list[nn.Parameter]] = {
        (None, weight_decay): [],
        (None, 0.0): [],
    }
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        exempt = parameter.ndim < 2 or getattr(parameter, "_no_weight_decay", False)
        own = getattr(parameter, "_optim", {})
        lr = rates(name, own.get("lr"))
        key = (lr, own.get("weight_decay", 0.0 if exempt else weight_decay))
        groups.setdefault(key, []).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay} | ({} if lr is None else {"lr": lr})
        for (lr, decay), parameters in groups.items()
    ]


def make_optimizer(module: nn.Module, options: OptimOptions) -> torch.optim.Optimizer:
    """AdamW, LAMB or SGD with momentum over `parameter_groups`.

    Raises:
        ConfigError: layer decay for a model that does not say the order of its layers.
    """
    decay = options.layer_decay
    rates = own_rates if decay is None else decayed_rates(module, options.lr, decay)
    groups = parameter_groups(module, options.weight_decay, rates)
    if options.name == "sgd":
        return torch.optim.SGD(groups, lr=options.lr, momentum=0.9)
    if options.name == "lamb":
        return Lamb(groups, lr=options.lr, betas=options.betas)
    # fused: one pass over each tensor instead of some ten small operators
    return torch.optim.AdamW(groups, lr=options.lr, betas=options.betas, fused=True)


def lr_factor(options: OptimOptions, total_steps: int) -> Callable[[int], float]:
    """Learning rate of step i as a fraction of the peak: linear warm-up, then the schedule."""

    def factor(step: int) -> float:
        if step < options.warmup_steps:
            return (step + 1) / (options.warmup_steps + 1)
        if options.schedule == "constant":
            return 1.0
        rest = max(1, total_steps - options.warmup_steps - options.cooldown_steps)
        done = min(1.0, (step - options.warmup_steps) / rest)
        cosine = 0.5 * (1 + math.cos(math.pi * done))
        return options.final_lr_frac + (1 - options.final_lr_frac) * cosine

    return factor


def make_scheduler(
    optimizer: torch.optim.Optimizer, options: OptimOptions, total_steps: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """The schedule, stepped once per optimizer step."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lr_factor(options, total_steps))
