"""Make the helpers here importable; a shim that is on during a test and off afterwards."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import pytest

from ssm_kernels.compat import install, providers, uninstall

sys.path.insert(0, str(Path(__file__).parent))

Provide = Callable[..., None]


@pytest.fixture
def _off() -> Iterator[None]:
    uninstall()
    yield
    uninstall()


@pytest.fixture
def shim(_off: None) -> None:
    install(quiet=True)


@pytest.fixture
def real_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An installed distribution that holds a package mamba_ssm; its name and version."""
    package = tmp_path / "mamba_ssm"
    package.mkdir()
    (package / "__init__.py").write_text("ORIGIN = 'the real one'\n")
    (package / "deep.py").write_text("")
    info = tmp_path / "mamba_ssm-1.2.3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mamba-ssm\nVersion: 1.2.3\n")
    (info / "top_level.txt").write_text("mamba_ssm\n")
    monkeypatch.syspath_prepend(tmp_path)
    return "mamba-ssm 1.2.3"


@pytest.fixture
def provide(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provide]:
    """Replace the installed entry points by these tables, the i-th named plugin<i>."""

    def replace(*tables: dict[str, dict[str, object]]) -> None:
        module = ModuleType("tables_of_a_test")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        found = []
        for i, table in enumerate(tables):
            setattr(module, f"compat{i}", lambda table=table: table)
            found.append(EntryPoint(f"plugin{i}", f"{module.__name__}:compat{i}", providers.GROUP))
        monkeypatch.setattr(providers, "entry_points", lambda group: found)

    providers.provided.cache_clear()
    yield replace
    providers.provided.cache_clear()
