"""The hooks of the `ssm` plugin project, called per run, epoch or step; never per layer or token.

A plugin is a module or an object whose functions are marked `@ssm_core.hookimpl`. Installed
packages are found through the entry-point group `ssm.plugins`. `packages/ssm-core/docs/plugins.md`
shows each hook with an example.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from ssm_core.specs import (
        BenchmarkSpec,
        BrokenPlugin,
        CommandSpec,
        DatasetSpec,
        ExportSpec,
        ExtensionSpec,
        MixerSpec,
        ModelSpec,
        Picture,
        RecipeSpec,
        Remark,
        TaskSpec,
    )
    from ssm_core.train.run import Run

PROJECT = "ssm"
ENTRY_POINT_GROUP = "ssm.plugins"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


# --- what a package offers: collected once, at start-up ---------------------------------------


@hookspec
def ssm_register_models() -> Iterable[ModelSpec]:  # type: ignore[empty-body]
    """Offer whole models for `model: {name: ...}`."""


@hookspec
def ssm_register_mixers() -> Iterable[MixerSpec]:  # type: ignore[empty-body]
    """Offer sequence layers that every tower can mix with."""


@hookspec
def ssm_register_datasets() -> Iterable[DatasetSpec]:  # type: ignore[empty-body]
    """Offer data sets for `data: {name: ...}`."""


@hookspec
def ssm_register_tasks() -> Iterable[TaskSpec]:  # type: ignore[empty-body]
    """Offer tasks (loss, metrics, batch layout) for `task: {name: ...}`."""


@hookspec
def ssm_register_recipes() -> Iterable[RecipeSpec]:  # type: ignore[empty-body]
    """Offer recipes; `ssm_core.recipes_in(folder)` makes the list."""


@hookspec
def ssm_register_commands() -> Iterable[CommandSpec]:  # type: ignore[empty-body]
    """Offer further `ssm-train` commands."""


@hookspec
def ssm_register_benchmarks() -> Iterable[BenchmarkSpec]:  # type: ignore[empty-body]
    """Offer kinds of models that `ssm-train bench` can time."""


@hookspec
def ssm_register_exports() -> Iterable[ExportSpec]:  # type: ignore[empty-body]
    """Offer kinds of models that `ssm-train export` can write."""


@hookspec
def ssm_register_extensions() -> Iterable[ExtensionSpec]:  # type: ignore[empty-body]
    """Offer optional sections of a run, such as `--prune METHOD`."""


@hookspec
def ssm_broken_plugins() -> Iterable[BrokenPlugin]:  # type: ignore[empty-body]
    """Name plugins of your own that could not be loaded, for runs that miss something."""


# --- the life of a run ------------------------------------------------------------------------


@hookspec
def ssm_run_start(run: Run) -> None:
    """Model, optimizer and data stand; nothing has been trained and nothing resumed yet."""


@hookspec
def ssm_epoch_start(run: Run) -> None:
    """An epoch begins, or goes on after a resume in its middle."""


@hookspec
def ssm_backward_end(run: Run) -> None:
    """Gradients are complete: reduced over ranks, unscaled, not yet clipped; a step follows.

    Not called for a batch whose float16 gradients overflow, which gives no step.
    """


@hookspec
def ssm_step_end(run: Run, metrics: dict[str, float]) -> None:
    """The optimizer has stepped (`run.step` counts it), and `run.ema` has taken the step in.

    Values put into `metrics` are logged.
    """


@hookspec
def ssm_epoch_end(run: Run) -> None:
    """All batches of an epoch are done (`run.epoch` counts it); evaluation comes next."""


@hookspec(firstresult=True)
def ssm_steps_done(run: Run) -> bool | None:
    """All steps are done and evaluated. True: go on, after `run.train_on` began another level."""


@hookspec
def ssm_eval_end(run: Run, metrics: dict[str, float]) -> None:
    """An evaluation is complete. Values put into `metrics` are logged."""


@hookspec(firstresult=True)
def ssm_should_stop(run: Run, metrics: Mapping[str, float]) -> str | None:
    """Asked after each evaluation. The first string returned ends the run and is logged."""


@hookspec
def ssm_checkpoint_save(run: Run, state: dict[str, Any]) -> None:
    """Add what must survive a kill: tensors and JSON values, under the plugin's own name only."""


@hookspec
def ssm_checkpoint_load(run: Run, state: Mapping[str, Any]) -> None:
    """A run is resumed: read back what `ssm_checkpoint_save` wrote."""


@hookspec
def ssm_run_end(run: Run, error: BaseException | None) -> None:
    """The run is over, finished (`error` is None) or not; called in every case."""


@hookspec
def ssm_report(  # type: ignore[empty-body]
    runs: list[Path], folder: Path
) -> Iterable[Path | Picture | Remark]:
    """Draw pictures of these run folders into `folder`.

    Return `ssm_core.Picture`s, or bare paths, which the page shows under the file's name, and
    `ssm_core.Remark`s about runs that cannot be drawn. `ssm_core.train.report.run_names(runs)`
    gives every run the name that tables and curves call it by.
    """
