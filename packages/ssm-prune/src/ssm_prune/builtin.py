"""The host's own answers, registered first so that every plugin is asked before them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from ssm_prune.artifact import Artifact
from ssm_prune.hookspecs import hookimpl
from ssm_prune.policy import Verdict, default_verdict
from ssm_prune.schedules import RAMPS, Ramp
from ssm_prune.scores import SCORES, Score


@hookimpl
def ssm_prune_schedules() -> Mapping[str, Ramp]:
    return RAMPS


@hookimpl
def ssm_prune_scores() -> Mapping[str, Score]:
    return SCORES


@hookimpl(trylast=True)
def ssm_prune_policy(fqn: str, param: nn.Parameter, module: nn.Module, model: nn.Module) -> Verdict:
    return default_verdict(fqn, param, module, model)


@hookimpl(trylast=True)
def ssm_prune_export(model: nn.Module, masks: Mapping[str, Tensor], target: str) -> Artifact | None:
    from ssm_prune.loader import prune_plugins
    from ssm_prune.unit_zeros import remove_dead_units

    if target != "removed" or not masks:
        return None
    return remove_dead_units(model, prune_plugins().hook.ssm_prune_adapter)
