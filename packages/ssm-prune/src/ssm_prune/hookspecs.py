"""The hooks of the `ssm_prune` plugin project.

A plugin is a module whose functions are marked `@ssm_prune.hookimpl`. Installed packages are found
through the entry-point group `ssm_prune.plugins`. An implementation may leave out arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ssm_prune.artifact import Artifact
    from ssm_prune.context import PruneContext
    from ssm_prune.policy import Verdict
    from ssm_prune.pruner import MasksChanged, MethodSpec, Problem, Proposal
    from ssm_prune.report_section import Section
    from ssm_prune.units import BlockAdapter

PROJECT = "ssm_prune"
ENTRY_POINT_GROUP = "ssm_prune.plugins"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def ssm_prune_methods() -> Iterable[MethodSpec]:  # type: ignore[empty-body]
    """Offer methods for `--prune NAME`; collected once, at start-up."""


@hookspec
def ssm_prune_schedules() -> Mapping[str, Callable[[float], float]]:  # type: ignore[empty-body]
    """Offer ramps for `--prune.ramp NAME`: u in [0, 1] -> fraction of the target, in [0, 1]."""


@hookspec
def ssm_prune_scores() -> Mapping[  # type: ignore[empty-body]
    str, Callable[[PruneContext, str, nn.Parameter], Tensor]
]:
    """Offer scores for `--prune.score NAME`: (ctx, name, parameter) -> a number per weight.

    The tensor has the parameter's shape; the lowest are removed first, NaN is refused.
    """


@hookspec(firstresult=True)
def ssm_prune_policy(
    fqn: str, param: nn.Parameter, module: nn.Module, model: nn.Module
) -> Verdict | None:
    """Say whether a parameter may be pruned; None leaves it to the others, the host answers last.

    Not asked about what may never be zeroed (state matrices, D, step sizes, norms, biases).
    """


@hookspec(firstresult=True)
def ssm_prune_adapter(module: nn.Module, fqn: str, model: nn.Module) -> BlockAdapter | None:
    """Say which tensors of a module belong to its channels, states or heads; None: not mine.

    Args:
        fqn: full name of the module in the model.
    """


@hookspec
def ssm_prune_check(proposal: Proposal, ctx: PruneContext) -> Iterable[Problem]:  # type: ignore[empty-body]
    """Look at a proposal before it is carried out; any problem skips it, and is in the report."""


@hookspec
def ssm_prune_masks_changed(event: MasksChanged) -> None:
    """Masks have changed. For observers; the return value is ignored."""


@hookspec
def ssm_prune_report(report: Mapping[str, Any]) -> Iterable[Section]:  # type: ignore[empty-body]
    """Add sections to the page of a pruned run; `report` is what prune_report.json holds."""


@hookspec(firstresult=True)
def ssm_prune_export(model: nn.Module, masks: Mapping[str, Tensor], target: str) -> Artifact | None:
    """Turn a masked model into another form for `ssm-prune export --as TARGET`.

    Args:
        model: the pruned model, with its zeros; a copy, which may be changed.
        masks: name of a parameter -> mask in its shape, True where kept; only of parameters that
            lost weights.
        target: "removed": removed channels, states, heads and blocks are to be gone.
    """
