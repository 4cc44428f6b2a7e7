"""A host with the toy plugin, and `ssm-train` in a process of its own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ssm_core.plugins import PluginHost

PLUGINS = Path(__file__).parent / "plugins"

#: `ssm-train` with the toy plugin registered and installed plugins left out
LAUNCHER = """
import sys
sys.path.insert(0, {plugins!r})
import toy_plugin
from ssm_core import plugins
from ssm_core.cli import main
host = plugins.PluginHost(load_entry_points=False)
host.register(toy_plugin, "toy 1.0")
plugins.plugin_host = lambda: host
import ssm_core.mixers
ssm_core.mixers.plugin_host = plugins.plugin_host
sys.exit(main())
"""


@pytest.fixture(scope="session")
def toy():
    spec = importlib.util.spec_from_file_location("toy_plugin", PLUGINS / "toy_plugin.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["toy_plugin"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def host(toy):
    host = PluginHost(load_entry_points=False)
    host.register(toy, "toy 1.0")
    toy.Counter.instances.clear()
    return host


@pytest.fixture
def train(host, monkeypatch, tmp_path, capsys):
    """Run `ssm-train` in this process: returns (exit code, stdout, stderr)."""
    monkeypatch.setattr("ssm_core.plugins.plugin_host", lambda: host)
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, str, str]:
        from ssm_core.cli import main

        code = main(list(words))
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture(scope="session")
def launcher(tmp_path_factory) -> Path:
    """A script that is `ssm-train` with the toy plugin, for tests that need real processes."""
    path = tmp_path_factory.mktemp("launcher") / "ssm_train_toy.py"
    path.write_text(LAUNCHER.format(plugins=str(PLUGINS)))
    return path


@pytest.fixture
def spawn(launcher, tmp_path):
    """Start `ssm-train` as a process: `spawn(words, prefix=[...])` returns the Popen."""

    def start(words, prefix=(), **env) -> subprocess.Popen:
        command = [sys.executable, *prefix, str(launcher), *words]
        return subprocess.Popen(
            command,
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start
