"""Models of runs: the dense one that a run began with, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from ssm_core.specs import DataInfo
from ssm_core.train.resolve import ResolvedConfig
from ssm_prune.loader import PrunePlugins
from ssm_prune.policy import Verdict, decide

DENSE, MASKED, REMOVED = "dense", "masked", "removed"


def build_dense(config: ResolvedConfig, info: DataInfo) -> nn.Module:
    """The untrained model of a configuration, in evaluation mode; torch's generator is put back."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.trainer.seed)
        model: nn.Module = config.specs["model"].build(config.typed["model"], info)
    return model.eval()


def verdicts_of(model: nn.Module, plugins: PrunePlugins) -> dict[str, Verdict]:
    """What the policy says about each parameter, without exceptions by the user."""
    return decide(model, plugins.hook.ssm_prune_policy, ())


def state_of(model: nn.Module, dense: nn.Module, verdicts: Mapping[str, Verdict]) -> str:
    """Removed if the model is smaller than the dense one, masked if it has zeros, else dense."""
    if _size(model) < _size(dense):
        return REMOVED
    prunable = (p for name, p in model.named_parameters() if verdicts[name].allow)
    return MASKED if any(bool((p == 0).any()) for p in prunable) else DENSE


def _size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
