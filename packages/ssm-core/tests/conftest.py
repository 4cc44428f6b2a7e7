"""A host with the toy plugin, and `ssm-train` in a process of its own."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
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


class Fork:
    """`ssm-train` in a process that was forked from the warm one.

    Attributes:
        pid: its number.
        output: what it printed, known when it has ended.
    """

    def __init__(self, warm: subprocess.Popen, words, folder: Path, environment, output: Path):
        self._warm, self._file, self.output = warm, output, ""
        request = {"start": words, "folder": str(folder), "environment": environment}
        self.pid = self._ask(request | {"output": str(output)})

    def wait(self) -> int:
        """Its exit code, negative for a signal."""
        code = self._ask({"wait": self.pid})
        self.output = self._file.read_text()
        return code

    def _ask(self, request) -> int:
        self._warm.stdin.write(json.dumps(request) + "\n")
        self._warm.stdin.flush()
        return int(self._warm.stdout.readline())


@pytest.fixture(scope="session")
def warm() -> Iterator[subprocess.Popen]:
    """The process of warm.py."""
    path = os.pathsep.join(filter(None, [str(PLUGINS), os.environ.get("PYTHONPATH", "")]))
    own = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    own["CUDA_VISIBLE_DEVICES"] = ""  # what the imports ask of a GPU would not survive a fork
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("warm.py"))],
        env={**os.environ, **own},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process
    process.communicate(timeout=300)


@pytest.fixture
def fork(warm, tmp_path):
    """Start `ssm-train` from the warm process: `fork(words, NAME=value)` returns the Fork.

    Ten times as fast as `spawn`, whose process shares nothing with others, not even the hash seed.
    """
    count = itertools.count()

    def start(words, **environment: str) -> Fork:
        return Fork(warm, words, tmp_path, environment, tmp_path / f"output-{next(count)}")

    return start
