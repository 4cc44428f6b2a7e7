from __future__ import annotations

from types import SimpleNamespace

import pytest

from ssm_core.errors import CheckpointError
from ssm_prune.host import PruneExtension
from ssm_prune.loader import prune_plugins
from ssm_prune.options import PruneOptions


def extension() -> PruneExtension:
    plugins = prune_plugins()
    return PruneExtension(plugins.method("dynamic-cosine"), PruneOptions(), plugins)


def test_a_checkpoint_without_pruning_is_refused() -> None:
    with pytest.raises(CheckpointError, match="runs/a: the checkpoint is of a run without pruning"):
        extension().ssm_checkpoint_load(SimpleNamespace(folder="runs/a"), {"other": 1})


def test_a_run_that_never_started_leaves_no_report() -> None:
    run = SimpleNamespace(fabric=None, folder=None)  # any use of them would raise
    assert extension().ssm_run_end(run, error=ValueError("before")) is None
