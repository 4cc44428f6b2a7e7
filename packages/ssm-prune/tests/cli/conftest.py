"""One tiny pruned run, trained once; every test gets a copy that it may damage."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ssm_core import plugin_host
from ssm_core.cli import main
from ssm_prune.loader import prune_plugins

WORDS = ("--prune", "dynamic-cosine", "--prune.sparsity", "0.6", "--prune.begin", "2it")


@pytest.fixture(scope="session")
def trained(toy_site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the toy recipe with 60 % sparsity."""
    out = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(toy_site)
        _forget()
        assert main(["fit", "toy", "--out", str(out), *WORDS]) == 0
    _forget()
    return out / "toy-001"


@pytest.fixture
def run(trained: Path, toy_recipe: None, tmp_path: Path) -> Path:
    """A copy of the trained run, with the toy recipe installed."""
    return Path(shutil.copytree(trained, tmp_path / "copies" / trained.name))


def _forget() -> None:
    plugin_host.cache_clear()
    prune_plugins.cache_clear()
