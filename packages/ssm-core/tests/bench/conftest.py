"""A host that knows two kinds of toy models."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ssm_core import PluginHost
from ssm_core.bench import measure

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> PluginHost:
    import toy_benchmarks

    host = PluginHost(load_entry_points=False)
    host.register(toy_benchmarks, "toy 1.0")
    monkeypatch.setattr(measure, "plugin_host", lambda: host)
    return host
